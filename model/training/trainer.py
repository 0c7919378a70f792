"""The online trainer: prequential (progressive) validation, in the total order (Dawid 1984; Gama et al. 2013).

Every batch is first scored and measured, then learned from by that very score.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from prectr.model.config import TrainerConfig
from prectr.model.distributed.data_parallel import (
    all_gather_scores,
    all_reduce_gradients,
    rescale_losses,
    shard,
    shard_positions,
)
from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.feature_slots import FeatureSlots
from prectr.model.features.feature_summary import FeaturesSummary
from prectr.model.features.observed_features import ObservedFeatures
from prectr.model.features.smoothing import PriorRates
from prectr.model.layers.finiteness import failure_of_gradients, first_not_finite
from prectr.model.layers.gradients import Gradients
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.registry import make_model
from prectr.model.quality.counterfactual.reranking import Reranking, is_reranked
from prectr.model.quality.explanation import Explanation, explain, to_numpy
from prectr.model.quality.quality import Quality
from prectr.model.quality.query_losses import QueryLosses
from prectr.model.quality.resamples import Resamples
from prectr.model.quality.scored_pages import NO_PAGES, ScoredPages, scored_pages_of
from prectr.model.training import checkpoint
from prectr.model.training.device import pick_device
from prectr.model.training.permutation_importance import PermutationImportance, summarise_features
from prectr.model.training.saved_tensors import require_tensors
from prectr.state.errors import CheckpointError, Remedy, TrainingError
from prectr.state.setting import check_config
from prectr.stream.records import Example

NEWEST_PAGES: Final = 32
"""Number of pages that `explain_newest` covers."""


@dataclass(frozen=True, slots=True)
class BatchScores:
    """The scores of one batch, from before it was learned from."""

    batch: Batch
    logits: NDArray[np.float64]
    """float64[N]: log-odds of a click at the position shown."""


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """This rank's shard of a batch, scored."""

    batch: Batch
    forward: ForwardOutput
    logits: NDArray[np.float64]


class Trainer:
    """An `ExampleSink` that tests, then trains.

    A batch ends at `batch_pages` pages, or before a page whose close time exceeds that of the batch's first by
    `batch_span`. Only pages end it: the watermark depends on how the sources are partitioned, so it is ignored.
    The open batch is part of the checkpoint; `flush` trains it.

    Data-parallel training: all ranks must consume the same examples; rank r of R scores the pages i ≡ r (mod R) of
    each batch, possibly none. All ranks count the scores of all and step by the sum of all gradients, so that their
    states are bitwise identical: the checkpoint of any rank is that of all.

    batches, pages_trained: since the start of the run, resumed runs included.
    quality, resamples, query_losses: the prequential quality of all pages trained on, its spread, and the queries with
    the most lost. reranking: where the clicks of some of the pages were, and would be in the model's order.
    """

    def __init__(
        self,
        config: TrainerConfig,
        on_scores: Callable[[BatchScores], None] | None = None,
        process_group: TorchProcessGroup | None = None,
    ) -> None:
        """Make a trainer at its start.

        Args:
            config: settings.
            on_scores: receives the scores of each batch, before it is learned from.
            process_group: the ranks of data-parallel training, each with a trainer of the same settings.

        Raises:
            ConfigError: there is no such model, component or device, or a setting is out of its range.
        """
        check_config(config)
        self.config = config
        self.quality = Quality()
        self.resamples = Resamples()
        self.query_losses = QueryLosses()
        self.reranking = Reranking()
        self.batches = 0
        self.pages_trained = 0
        self._on_scores = on_scores
        self._process_group = process_group
        self._device = pick_device(config.device) if process_group is None else process_group.device
        _make_deterministic(self._device)
        self._model = make_model(config, self._device)
        self._prior_rates = PriorRates(config.prior_rates_size, config.smoothing)
        self._feature_encoder = FeatureEncoder()
        self._slots = FeatureSlots(config)
        self._permutation_importance = PermutationImportance(config.seed)
        self._open_batch: list[Example] = []
        self._newest_pages: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Consume the next examples, in the total order, and train every batch that they complete.

        Raises:
            TrainingError: a loss or a gradient is not finite; weights and quality are as before the batch.
        """
        span_ms = self.config.batch_span * 1000.0
        for example in examples:
            if self._open_batch and example.closes_at - self._open_batch[0].closes_at > span_ms:
                self._train_batch()
            self._open_batch.append(example)
            if len(self._open_batch) >= self.config.batch_pages:
                self._train_batch()

    def flush(self) -> None:
        """Train the open batch, at the end of the log."""
        if self._open_batch:
            self._train_batch()

    def score(self, examples: Sequence[Example], position: int | None = 1) -> NDArray[np.float64]:
        """Logits float64[N] of the pages' items, without learning; labels are not read.

        position: score every item as a candidate at this position (1 for ranking); None: as shown.
        """
        self._set_threads()
        batch = self._collate(examples)
        return to_numpy(self._model.score(batch if position is None else batch.at_position(position)))

    def explain(self, examples: Sequence[Example], position: int | None = 1) -> Explanation:
        """Score the pages' items as `score` does, and return the parts of the scores."""
        self._set_threads()
        batch = self._collate(examples)
        return explain(self._model, batch if position is None else batch.at_position(position))

    def explain_newest(self) -> tuple[Sequence[Example], Explanation] | None:
        """The newest pages trained on, explained as shown; None if levels are not inferred."""
        return (self._newest_pages, self.explain(self._newest_pages, None)) if self._newest_pages else None

    def features_summary(self) -> FeaturesSummary:
        """The custom features read so far, and the importance of each."""
        return summarise_features(self._slots.state, self._permutation_importance)

    def save(self, folder: Path) -> None:
        """Write all state into the empty `folder`, which the caller syncs and renames into place.

        Raises:
            TrainingError: a weight, or another number of the state, is not finite; nothing was written.
        """
        tensors = self._tensors()
        found = first_not_finite(tensors)
        if found is not None:
            raise TrainingError(
                f"the state of model {self.config.model} is not saved: {found[0]} holds {found[1]}; the checkpoint "
                "before it stays. Check the prices and counts of the pages since then, and lower the learning rates in "
                "a new run"
            )
        progress = checkpoint.TrainerProgress(
            batches=self.batches,
            pages_trained=self.pages_trained,
            open_batch=tuple(self._open_batch),
            quality=self.quality.state(),
            resamples=self.resamples.state(),
            query_losses=self.query_losses.state(),
            reranking=self.reranking.state(),
            features=self._slots.state,
            permutation_importance=self._permutation_importance.state,
            newest=tuple(self._newest_pages),
        )
        checkpoint.write(folder, self.config, progress, tensors)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint, by name."""
        tensors = {"model." + name: tensor.contiguous() for name, tensor in self._model.training_state().items()}
        tensors["prior_rates.impressions"] = torch.from_numpy(self._prior_rates.impressions)
        tensors["prior_rates.clicks"] = torch.from_numpy(self._prior_rates.clicks)
        return tensors

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, into a new trainer.

        Raises:
            CheckpointError: it is corrupt, not finite, or of another format, model or configuration.
        """
        saved = checkpoint.read(folder, self.config)
        tensors = saved.tensors
        try:
            # All of them before the first is copied: a tensor of another shape could be broadcast.
            require_tensors(tensors, self._tensors())
            self._prior_rates.load_counts(
                tensors.pop("prior_rates.impressions").numpy(), tensors.pop("prior_rates.clicks").numpy()
            )
            self._model.load_training_state({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {folder} does not hold the state of model {self.config.model} ({error}); it is damaged, "
                "or was written by another version",
                Remedy.OLDER_CHECKPOINT,
                Remedy.RELEASE_THAT_WROTE,
                Remedy.EMPTY_RUN_DIR,
            ) from error
        self.batches = saved.progress.batches
        self.pages_trained = saved.progress.pages_trained
        self.quality = Quality.from_state(saved.progress.quality)
        self.resamples = Resamples.from_state(saved.progress.resamples)
        self.query_losses = QueryLosses(saved.progress.query_losses)
        self.reranking = Reranking(saved.progress.reranking)
        self._slots.load_state(saved.progress.features)
        self._permutation_importance = PermutationImportance(self.config.seed, saved.progress.permutation_importance)
        self._open_batch = list(saved.progress.open_batch)
        self._newest_pages = list(saved.progress.newest)

    def weights_sha256(self) -> str:
        """SHA-256 over every trained parameter: by sorted name, its name, dtype, shape and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.weights().items()):
            array = np.ascontiguousarray(tensor.detach().cpu().numpy())
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def _collate(self, examples: Sequence[Example]) -> Batch:
        return self._encode(examples)

    def _encode(self, examples: Sequence[Example]) -> Batch:
        return self._feature_encoder.encode(examples, self._prior_rates, self._model.feature_needs, self._slots)

    def _train_batch(self) -> None:
        self._set_threads()
        own = self._forward_shard(
            self._open_batch if self._process_group is None else shard(self._open_batch, self._process_group)
        )
        pages = self._gather_scores(own)
        # Before anything is counted: a batch that cannot be learned from changes neither weights nor quality.
        gradients = self._gradients(own, len(pages.labels))
        update = self.quality.add_pages(pages)
        self.resamples.add(pages, update)
        self.query_losses.add(pages, update, self._open_batch)
        self._measure_reranking(own)
        if own is not None and self._on_scores is not None:
            self._on_scores(BatchScores(own.batch, own.logits))
        self._permutation_importance.measure(
            self.batches, self._open_batch, self._slots.slots, self._encode, self._model.score
        )
        self._model.step(gradients)
        self._prior_rates.update(pages.category, pages.levels, pages.labels)
        self._slots.update(
            own.batch.observed
            if own is not None and self._process_group is None
            else ObservedFeatures.of(self._open_batch)
        )
        self.batches += 1
        self.pages_trained += len(self._open_batch)
        if self.config.infers_levels:
            self._newest_pages = [*self._newest_pages, *self._open_batch][-NEWEST_PAGES:]
        self._open_batch = []

    def _measure_reranking(self, own: ScoredShard | None) -> None:
        """Rank the pages of some batches as candidates, before they are learned from."""
        if not is_reranked(self.batches):
            return
        # With several ranks each measures the whole batch.
        batch = self._encode(self._open_batch) if own is None or self._process_group is not None else own.batch
        self.reranking.add(scored_pages_of(batch, to_numpy(self._model.score(batch.at_position(1)))))

    def _forward_shard(self, pages: Sequence[Example]) -> ScoredShard | None:
        if not pages:
            return None
        batch = self._collate(pages)
        if self._process_group is not None:
            global_size = sum(len(page.labels) for page in self._open_batch)
            batch = replace(
                batch, global_positions=shard_positions(self._open_batch, self._process_group), global_size=global_size
            )
        forward = self._model.forward(batch)
        return ScoredShard(batch, forward, to_numpy(forward.logits))

    def _gather_scores(self, own: ScoredShard | None) -> ScoredPages:
        """The scored pages of the whole batch, from all ranks; TrainingError: a rank's losses are not finite."""
        pages = NO_PAGES if own is None else scored_pages_of(own.batch, own.logits)
        failure = "" if own is None else _failure_of(own)
        if self._process_group is not None:
            loss_keys = {} if own is None else {name: part.keys for name, part in own.forward.loss_reductions.items()}
            gathered = all_gather_scores(pages, failure, self._process_group, loss_keys)
            if own is not None:
                rescale_losses(own.forward, own.batch.impressions, gathered)
            return gathered.pages
        if failure:
            raise TrainingError(failure)
        return pages

    def _gradients(self, own: ScoredShard | None, impressions: int) -> Gradients:
        """The gradients of the whole batch, of so many impressions, from all ranks.

        Raises:
            TrainingError: one is not finite; raised on all ranks alike, since all hold the same sum.
        """
        gradients = self._model.zero_gradients() if own is None else self._model.gradients(own.batch, own.forward)
        if self._process_group is not None:
            gradients = all_reduce_gradients(gradients, impressions, self._process_group)
        failure = failure_of_gradients(gradients, self._model.parameter_at)
        if failure:
            gradients.dense.zero_()
            raise TrainingError(_not_learned_from(failure, [page.request_id for page in self._open_batch]))
        return gradients

    def _set_threads(self) -> None:
        # Rounding of sums depends on the number of threads, which is part of the configuration.
        if self.config.threads and torch.get_num_threads() != self.config.threads:
            torch.set_num_threads(self.config.threads)


def _failure_of(own: ScoredShard) -> str:
    """Why the shard cannot be learned from; empty if it can."""
    for name, loss in own.forward.losses.items():
        value = float(loss.detach())
        if not np.isfinite(value):
            return _not_learned_from(f"the {name} loss of a batch is {value}", own.batch.request_ids)
    return ""


def _not_learned_from(failure: str, request_ids: Sequence[str]) -> str:
    pages = ", ".join(map(repr, request_ids))
    return (
        f"{failure}; the batch was not learned from. Its pages: {pages}. Check their prices and counts, and lower the "
        "learning rates in a new run"
    )


def _make_deterministic(device: torch.device) -> None:
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # torch.use_deterministic_algorithms does the same, but imports torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error")
    # Filling uninitialised memory costs time; all of it is written before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
