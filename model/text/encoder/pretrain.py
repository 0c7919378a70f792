"""Stage one: the encoder learns relevance from a teacher's labels and from graded pairs, before it sees a click."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.holdout import hold_out
from prectr.model.text.encoder.length_bucketing import by_length, shuffled_by_length
from prectr.model.text.encoder.network import LEVELS, VECTOR, RelevanceEncoder, make_encoder
from prectr.model.text.encoder.schedule import Schedule
from prectr.model.text.encoder.tokens import MASK, SPECIAL, Pair, PairTokenizer, PairTokens
from prectr.model.text.encoder.vocabulary import SIZE, train_vocabulary
from prectr.model.text.teacher.distillation import distillation_loss, reduce_vectors, start_from_vectors, vector_loss
from prectr.model.text.teacher.labels import SoftLabels
from prectr.state.errors import UsageError

_SCORED_BATCH: Final = 256

Said = Callable[[float, str], None]
"""Hears how much is done, 0 to 1, and a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """How an encoder is pre-trained."""

    seed: int = 0
    vocabulary: int = SIZE
    """Tokens at most."""
    batch: int = 64
    """Pairs a step."""
    temperature: float = 2.0
    """Of distillation: above 1, the teacher's small probabilities count for more."""
    vector_weight: float = 1.0
    """Of the cosine against the teacher's vectors, where the labels carry them."""
    distil_epochs: int = 8
    distil_rate: float = 1e-3
    tune_epochs: int = 40
    """Passes over the graded pairs at most."""
    tune_rate: float = 5e-4
    patience: int = 5
    """Passes without a better log loss on the held-out queries, after which fine-tuning stops."""
    held_out: float = 0.1
    """Share of the graded queries held out; 0: all are trained on, for `tune_epochs`."""
    hidden_words: float = 0.1
    """Share of the tokens hidden from the encoder in fine-tuning, anew each pass: it learns no pair by heart."""


class Pass(NamedTuple):
    """What one pass over the data came to."""

    stage: str
    number: int
    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A pre-trained encoder, in evaluation mode, and how it came to be."""

    network: RelevanceEncoder
    tokenizer: PairTokenizer
    passes: list[Pass]
    best: int | None
    """The pass of fine-tuning that was kept."""


def pretrain(
    graded: Sequence[GradedPair],
    config: PretrainConfig,
    *,
    unlabelled: Sequence[Pair] = (),
    labels: SoftLabels | None = None,
    device: torch.device | None = None,
    said: Said = lambda done, note: None,
) -> Pretrained:
    """Train a vocabulary, distil from labels where there are any, then fine-tune on graded pairs.

    labels: of the unlabelled pairs, in their order. The same arguments give the same encoder, on one kind of machine.

    Raises:
        UsageError: there are labels without pairs, or too few queries to hold any out.
        TrainingError: a loss is not finite.
    """
    if labels is not None and len(labels.log_levels) != len(unlabelled):
        raise UsageError(
            f"there are labels of {len(labels.log_levels)} pairs and {len(unlabelled)} pairs: give the file of pairs "
            "that was labelled"
        )
    device = device or torch.device("cpu")
    learned, aside = hold_out(graded, config.held_out, config.seed)
    tokenizer = PairTokenizer(train_vocabulary(_texts(learned, unlabelled), size=config.vocabulary))
    network = make_encoder(tokenizer, config.seed).to(device)
    work = _Work(network, tokenizer, config, device)
    passes: list[Pass] = []
    if labels is not None:
        passes += work.distil(unlabelled, labels, aside, lambda done, note: said(0.8 * done, note))
    begun = 0.8 if labels is not None else 0.0
    tuned, best = work.tune(learned, aside, lambda done, note: said(begun + (1 - begun) * done, note))
    return Pretrained(network.eval().cpu(), tokenizer, [*passes, *tuned], best)


class _Work:
    def __init__(
        self, network: RelevanceEncoder, tokenizer: PairTokenizer, config: PretrainConfig, device: torch.device
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._config = config
        self._device = device
        self._random = torch.Generator().manual_seed(config.seed)

    def distil(self, pairs: Sequence[Pair], labels: SoftLabels, aside: Sequence[GradedPair], said: Said) -> list[Pass]:
        """Learn the teacher's labels."""
        config = self._config
        teacher = torch.from_numpy(labels.log_levels)
        vectors = torch.from_numpy(reduce_vectors(labels.vectors, VECTOR)) if labels.texts else None
        if labels.texts:
            words = self._network.bert.embeddings.word_embeddings.weight
            start_from_vectors(words.data, self._tokenizer.tokenizer.get_vocab(), labels.texts, labels.vectors)
        lengths = self._tokenizer.lengths(pairs)
        steps = config.distil_epochs * -(-len(pairs) // config.batch)
        schedule = Schedule(self._network.parameters(), rate=config.distil_rate, steps=steps)
        rng = np.random.default_rng([config.seed, 1])
        passes, done = [], 0
        for number in range(1, config.distil_epochs + 1):
            self._network.train()
            total = 0.0
            for places in shuffled_by_length(lengths, config.batch, rng):
                some = [pairs[place] for place in places]
                encoded = self._network(self._tokenizer.encode(some).to(self._device))
                loss = distillation_loss(encoded.level_logits, teacher[places].to(self._device), config.temperature)
                if vectors is not None:
                    query = vectors[[labels.texts[query] for query, _ in some]].to(self._device)
                    item = vectors[[labels.texts[title] for _, title in some]].to(self._device)
                    loss = loss + config.vector_weight * vector_loss(encoded, query, item)
                total += schedule.step(loss, "distillation") * len(places)
                done += 1
                said(done / steps, f"distil {number}/{config.distil_epochs}: loss {float(loss.detach()):.3f}")
            passes.append(self._passed("distil", number, total / max(len(pairs), 1), aside))
        return passes

    def tune(
        self, graded: Sequence[GradedPair], aside: Sequence[GradedPair], said: Said
    ) -> tuple[list[Pass], int | None]:
        """Learn the graded pairs, and keep the pass that was best on those held out."""
        config = self._config
        pairs = [pair.pair for pair in graded]
        levels = torch.tensor([pair.level - 1 for pair in graded])
        lengths = self._tokenizer.lengths(pairs)
        steps = config.tune_epochs * -(-len(pairs) // config.batch)
        schedule = Schedule(self._network.parameters(), rate=config.tune_rate, steps=steps)
        rng = np.random.default_rng([config.seed, 2])
        passes: list[Pass] = []
        best, best_loss, best_state = None, np.inf, None
        done = 0
        for number in range(1, config.tune_epochs + 1):
            self._network.train()
            total = 0.0
            for places in shuffled_by_length(lengths, config.batch, rng):
                tokens = self._hide(self._tokenizer.encode([pairs[place] for place in places])).to(self._device)
                logits = self._network(tokens).level_logits
                loss = functional.cross_entropy(logits, levels[places].to(self._device))
                total += schedule.step(loss, "fine-tuning") * len(places)
                done += 1
            passes.append(self._passed("tune", number, total / len(pairs), aside))
            held = passes[-1].held_out_loss
            said(
                done / steps,
                f"tune {number}: loss {total / len(pairs):.3f}" + (f", held out {held:.3f}" if held else ""),
            )
            if held is not None:
                if held < best_loss:
                    best, best_loss, best_state = number, held, copy.deepcopy(self._network.state_dict())
                elif best is not None and number - best >= config.patience:
                    break
        if best_state is not None:
            self._network.load_state_dict(best_state)
        said(1.0, "done")
        return passes, best

    def _hide(self, tokens: PairTokens) -> PairTokens:
        """The same with some words hidden."""
        if self._config.hidden_words <= 0:
            return tokens
        drawn = torch.rand(tokens.ids.shape, generator=self._random) < self._config.hidden_words
        hidden = torch.tensor(self._tokenizer.tokenizer.token_to_id(MASK))
        ids = torch.where(drawn & (tokens.ids >= len(SPECIAL)), hidden, tokens.ids)
        return dataclasses.replace(tokens, ids=ids)

    def _passed(self, stage: str, number: int, loss: float, aside: Sequence[GradedPair]) -> Pass:
        if not aside:
            return Pass(stage, number, loss, None, None)
        logits = level_logits(self._network, self._tokenizer, [pair.pair for pair in aside], self._device)
        levels = torch.tensor([pair.level - 1 for pair in aside])
        held = float(functional.cross_entropy(logits, levels))
        return Pass(stage, number, loss, held, float((logits.argmax(dim=1) == levels).float().mean()))


def level_logits(
    network: RelevanceEncoder, tokenizer: PairTokenizer, pairs: Sequence[Pair], device: torch.device | None = None
) -> Tensor:
    """The level logits of pairs, float32[n, 4], on the CPU; nothing is learned."""
    device = device or torch.device("cpu")
    found = torch.zeros(len(pairs), LEVELS)
    was = network.training
    network.eval()
    with torch.inference_mode():
        for places in by_length(tokenizer.lengths(pairs), _SCORED_BATCH):
            tokens = tokenizer.encode([pairs[place] for place in places]).to(device)
            found[places] = network(tokens).level_logits.cpu()
    network.train(was)
    return found


def _texts(graded: Sequence[GradedPair], unlabelled: Sequence[Pair]) -> list[str]:
    """The texts that the vocabulary is trained on, each query and title once."""
    pairs = [*(pair.pair for pair in graded), *unlabelled]
    return list(dict.fromkeys(text for pair in pairs for text in pair))
