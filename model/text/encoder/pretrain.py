"""Stage one: the encoder is trained on a teacher's labels and on graded pairs, before any clicks."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prectr.model.config import PretrainConfig
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.holdout import split_holdout
from prectr.model.text.encoder.length_bucketing import length_bucketed_batches, length_sorted_batches
from prectr.model.text.encoder.network import VECTOR_SIZE, RelevanceEncoder, make_encoder
from prectr.model.text.encoder.schedule import ScheduledAdamW
from prectr.model.text.encoder.tokens import MASK, SPECIAL_TOKENS, Pair, PairTokenizer, PairTokens
from prectr.model.text.encoder.vocabulary import train_vocabulary
from prectr.model.text.teacher.distillation import distillation_loss, init_from_vectors, reduce_vectors, vector_loss
from prectr.model.text.teacher.labels import SoftLabels
from prectr.state.aggregates import LEVEL_COUNT
from prectr.state.errors import UsageError
from prectr.state.setting import check_config

_EVAL_BATCH: Final = 256

OnProgress = Callable[[float, str], None]
"""Receives the progress, 0 to 1, and a note."""


class EpochResult(NamedTuple):
    """Losses of one epoch."""

    phase: str
    epoch: int
    loss: float
    held_out_loss: float | None
    held_out_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A pre-trained encoder, in evaluation mode, with its training history."""

    network: RelevanceEncoder
    tokenizer: PairTokenizer
    epochs: list[EpochResult]
    best_epoch: int | None
    """The epoch of fine-tuning whose weights were kept; None without a holdout."""


def pretrain(
    graded: Sequence[GradedPair],
    config: PretrainConfig,
    *,
    unlabelled: Sequence[Pair] = (),
    labels: SoftLabels | None = None,
    device: torch.device | None = None,
    on_progress: OnProgress = lambda done, note: None,
) -> Pretrained:
    """Train a vocabulary, distil from labels if given, then fine-tune on graded pairs.

    Equal arguments give equal encoders on one kind of machine.

    Args:
        graded: pairs for fine-tuning.
        config: settings.
        unlabelled: pairs for distillation.
        labels: the teacher's labels of `unlabelled`, in the same order.
        device: CPU by default.
        on_progress: receives progress.

    Raises:
        UsageError: `labels` and `unlabelled` differ in length, or there are too few queries for a holdout.
        TrainingError: a loss is not finite.
    """
    check_config(config)
    if labels is not None and len(labels.log_levels) != len(unlabelled):
        raise UsageError(
            f"there are labels of {len(labels.log_levels)} pairs and {len(unlabelled)} pairs: use the file of pairs "
            "that was labelled"
        )
    device = device or torch.device("cpu")
    train_pairs, holdout = split_holdout(graded, config.held_out, config.seed)
    tokenizer = PairTokenizer(train_vocabulary(_texts(train_pairs, unlabelled), size=config.vocab_size))
    network = make_encoder(tokenizer, config.seed).to(device)
    pretrainer = _Pretrainer(network, tokenizer, config, device)
    epochs: list[EpochResult] = []
    if labels is not None:
        epochs += pretrainer.distil(unlabelled, labels, holdout, lambda done, note: on_progress(0.8 * done, note))
    distilled_share = 0.8 if labels is not None else 0.0
    tuned, best = pretrainer.tune(
        train_pairs, holdout, lambda done, note: on_progress(distilled_share + (1 - distilled_share) * done, note)
    )
    return Pretrained(network.eval().cpu(), tokenizer, [*epochs, *tuned], best)


class _Pretrainer:
    def __init__(
        self, network: RelevanceEncoder, tokenizer: PairTokenizer, config: PretrainConfig, device: torch.device
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._config = config
        self._device = device
        self._generator = torch.Generator().manual_seed(config.seed)

    def distil(
        self, pairs: Sequence[Pair], labels: SoftLabels, holdout: Sequence[GradedPair], on_progress: OnProgress
    ) -> list[EpochResult]:
        """Train on the teacher's labels."""
        config = self._config
        teacher = torch.from_numpy(labels.log_levels)
        vectors = torch.from_numpy(reduce_vectors(labels.vectors, VECTOR_SIZE)) if labels.text_index else None
        if labels.text_index:
            words = self._network.bert.embeddings.word_embeddings.weight
            init_from_vectors(words.data, self._tokenizer.tokenizer.get_vocab(), labels.text_index, labels.vectors)
        lengths = self._tokenizer.lengths(pairs)
        steps = config.distil_epochs * -(-len(pairs) // config.batch_size)
        optimizer = ScheduledAdamW(self._network.parameters(), lr=config.distil_lr, steps=steps)
        rng = np.random.default_rng([config.seed, 1])
        epochs, done = [], 0
        for epoch in range(1, config.distil_epochs + 1):
            self._network.train()
            total = 0.0
            for indices in length_bucketed_batches(lengths, config.batch_size, rng):
                chunk = [pairs[index] for index in indices]
                encoded = self._network(self._tokenizer.encode(chunk).to(self._device))
                loss = distillation_loss(encoded.level_logits, teacher[indices].to(self._device), config.temperature)
                if vectors is not None:
                    query = vectors[[labels.text_index[query] for query, _ in chunk]].to(self._device)
                    item = vectors[[labels.text_index[title] for _, title in chunk]].to(self._device)
                    loss = loss + config.vector_weight * vector_loss(encoded, query, item)
                total += optimizer.step(loss, "distillation") * len(indices)
                done += 1
                on_progress(done / steps, f"distil {epoch}/{config.distil_epochs}: loss {float(loss.detach()):.3f}")
            epochs.append(self._evaluate("distil", epoch, total / max(len(pairs), 1), holdout))
        return epochs

    def tune(
        self, graded: Sequence[GradedPair], holdout: Sequence[GradedPair], on_progress: OnProgress
    ) -> tuple[list[EpochResult], int | None]:
        """Train on the graded pairs, and keep the epoch with the best loss on the holdout."""
        config = self._config
        pairs = [pair.pair for pair in graded]
        levels = torch.tensor([pair.level - 1 for pair in graded])
        lengths = self._tokenizer.lengths(pairs)
        steps = config.tune_epochs * -(-len(pairs) // config.batch_size)
        optimizer = ScheduledAdamW(self._network.parameters(), lr=config.tune_lr, steps=steps)
        rng = np.random.default_rng([config.seed, 2])
        epochs: list[EpochResult] = []
        best, best_loss, best_state = None, np.inf, None
        done = 0
        for epoch in range(1, config.tune_epochs + 1):
            self._network.train()
            total = 0.0
            for indices in length_bucketed_batches(lengths, config.batch_size, rng):
                tokens = self._mask_tokens(self._tokenizer.encode([pairs[index] for index in indices])).to(self._device)
                logits = self._network(tokens).level_logits
                loss = functional.cross_entropy(logits, levels[indices].to(self._device))
                total += optimizer.step(loss, "fine-tuning") * len(indices)
                done += 1
            epochs.append(self._evaluate("tune", epoch, total / len(pairs), holdout))
            holdout_loss = epochs[-1].held_out_loss
            on_progress(
                done / steps,
                f"tune {epoch}: loss {total / len(pairs):.3f}"
                + (f", held out {holdout_loss:.3f}" if holdout_loss else ""),
            )
            if holdout_loss is not None:
                if holdout_loss < best_loss:
                    best, best_loss, best_state = epoch, holdout_loss, copy.deepcopy(self._network.state_dict())
                elif best is not None and epoch - best >= config.patience:
                    break
        if best_state is not None:
            self._network.load_state_dict(best_state)
        on_progress(1.0, "done")
        return epochs, best

    def _mask_tokens(self, tokens: PairTokens) -> PairTokens:
        """Mask some of the tokens."""
        if self._config.mask_probability <= 0:
            return tokens
        masked = torch.rand(tokens.input_ids.shape, generator=self._generator) < self._config.mask_probability
        mask_id = torch.tensor(self._tokenizer.tokenizer.token_to_id(MASK))
        ids = torch.where(masked & (tokens.input_ids >= len(SPECIAL_TOKENS)), mask_id, tokens.input_ids)
        return dataclasses.replace(tokens, input_ids=ids)

    def _evaluate(self, phase: str, epoch: int, loss: float, holdout: Sequence[GradedPair]) -> EpochResult:
        if not holdout:
            return EpochResult(phase, epoch, loss, None, None)
        logits = predict_level_logits(self._network, self._tokenizer, [pair.pair for pair in holdout], self._device)
        levels = torch.tensor([pair.level - 1 for pair in holdout])
        holdout_loss = float(functional.cross_entropy(logits, levels))
        return EpochResult(phase, epoch, loss, holdout_loss, float((logits.argmax(dim=1) == levels).float().mean()))


def predict_level_logits(
    network: RelevanceEncoder, tokenizer: PairTokenizer, pairs: Sequence[Pair], device: torch.device | None = None
) -> Tensor:
    """Level logits of pairs, float32[n, 4], on the CPU, without training."""
    device = device or torch.device("cpu")
    logits = torch.zeros(len(pairs), LEVEL_COUNT)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for indices in length_sorted_batches(tokenizer.lengths(pairs), _EVAL_BATCH):
            tokens = tokenizer.encode([pairs[index] for index in indices]).to(device)
            logits[indices] = network(tokens).level_logits.cpu()
    network.train(was_training)
    return logits


def _texts(graded: Sequence[GradedPair], unlabelled: Sequence[Pair]) -> list[str]:
    """The distinct queries and titles, for the vocabulary."""
    pairs = [*(pair.pair for pair in graded), *unlabelled]
    return list(dict.fromkeys(text for pair in pairs for text in pair))
