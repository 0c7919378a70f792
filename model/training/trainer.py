"""The online trainer: every batch is scored first and learned from by that very score, in the one order."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from prectr.model.features.smoothing import PriorRates
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.registry import make_model
from prectr.model.quality.explanation import Explanation, explain
from prectr.model.quality.quality import Quality
from prectr.model.quality.scored_pages import NO_PAGES, ScoredPages, scored_pages_of
from prectr.model.training import checkpoint
from prectr.model.training.device import pick_device
from prectr.state.errors import CheckpointError, TrainingError
from prectr.state.setting import check_config
from prectr.stream.records import Example

NEWEST_PAGES: Final = 32
"""Pages that `explain_newest` speaks of."""


@dataclass(frozen=True, slots=True)
class BatchScores:
    """The measured scores of one batch, made before it was learned from."""

    batch: Batch
    logits: NDArray[np.float64]
    """float64[N]: log-odds of a click at the position shown."""


class Trainer:
    """An `ExampleSink` that learns: test, then train.

    A batch ends at `batch_pages` pages, or before a page whose effective close passes that of the batch's first
    by `batch_span`. Only pages end it: `line` depends on how the sources are spread, so it is not looked at.
    The open batch stays in the checkpoint; `flush` trains it.

    Several ranks train one model together: each must be given the same examples, and scores the pages i ≡ r (mod R)
    of each batch, possibly none. All count what all have scored and step by the sum of all gradients, so that all
    hold the same state, to the last bit: the checkpoint of any of them is that of all.

    batches, pages_trained: what has been learned from since the start of the run, resumed runs included.
    quality: the prequential quality of every page trained on.
    """

    def __init__(
        self,
        config: TrainerConfig,
        on_scores: Callable[[BatchScores], None] | None = None,
        process_group: TorchProcessGroup | None = None,
    ) -> None:
        """A trainer at its start. `on_scores` is told the scores of each batch before it is learned from.

        ranks: the processes that train this model together, each with a trainer that was made the same way.

        ConfigError: no such model, switch or device, or a setting out of its range.
        """
        check_config(config)
        self.config = config
        self.quality = Quality()
        self.batches = 0
        self.pages_trained = 0
        self._on_scores = on_scores
        self._process_group = process_group
        self._device = pick_device(config.device) if process_group is None else process_group.device
        _make_deterministic(self._device)
        self._model = make_model(config, self._device)
        self._prior_rates = PriorRates(config.prior_rates_size, config.smoothing)
        self._feature_encoder = FeatureEncoder()
        self._open_batch: list[Example] = []
        self._newest_pages: list[Example] = []

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Take the next examples, in the one order, and train every batch that they complete.

        TrainingError: a loss is not finite; the weights are as before the batch.
        """
        span_ms = self.config.batch_span * 1000.0
        for example in examples:
            if self._open_batch and example.closes_at - self._open_batch[0].closes_at > span_ms:
                self._train_batch()
            self._open_batch.append(example)
            if len(self._open_batch) >= self.config.batch_pages:
                self._train_batch()

    def flush(self) -> None:
        """Train the open batch: the log has ended for good."""
        if self._open_batch:
            self._train_batch()

    def score(self, examples: Sequence[Example], position: int | None = 1) -> NDArray[np.float64]:
        """Logits float64[N] of pages' items, nothing learned; labels are not looked at.

        position: every item is scored as if shown there (1 to rank), or as shown where None.
        """
        self._set_threads()
        batch = self._collate(examples)
        return _to_numpy(self._model.score(batch if position is None else batch.at_position(position)))

    def explain(self, examples: Sequence[Example], position: int | None = 1) -> Explanation:
        """Score pages' items as `score` does, with what the scores are made of."""
        self._set_threads()
        batch = self._collate(examples)
        return explain(self._model, batch if position is None else batch.at_position(position))

    def explain_newest(self) -> tuple[Sequence[Example], Explanation] | None:
        """The newest pages learned from and what is said of them, as shown; None where levels are not inferred."""
        return (self._newest_pages, self.explain(self._newest_pages, None)) if self._newest_pages else None

    def save(self, folder: Path) -> None:
        """Write all state into the empty `folder`; syncing and renaming it is the caller's."""
        progress = checkpoint.TrainerProgress(
            batches=self.batches,
            pages_trained=self.pages_trained,
            open_batch=tuple(self._open_batch),
            quality=self.quality.state(),
            newest=tuple(self._newest_pages),
        )
        tensors = {"model." + name: tensor.contiguous() for name, tensor in self._model.state_dict().items()}
        tensors["parents.impressions"] = torch.from_numpy(self._prior_rates.impressions)
        tensors["parents.clicks"] = torch.from_numpy(self._prior_rates.clicks)
        checkpoint.write(folder, self.config, progress, tensors)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote, in a trainer that was just made.

        CheckpointError: damaged, or of another format, model or configuration.
        """
        saved = checkpoint.read(folder, self.config)
        tensors = saved.tensors
        try:
            self._prior_rates.load_counts(
                tensors.pop("parents.impressions").numpy(), tensors.pop("parents.clicks").numpy()
            )
            self._model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {folder} does not hold the state of model {self.config.model} ({error}): "
                "it was written by another version; start over in an empty --run-dir"
            ) from error
        self.batches = saved.progress.batches
        self.pages_trained = saved.progress.pages_trained
        self.quality = Quality.from_state(saved.progress.quality)
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
        return self._feature_encoder.encode(examples, self._prior_rates, self._model.feature_needs)

    def _train_batch(self) -> None:
        self._set_threads()
        own = self._forward_shard(
            self._open_batch if self._process_group is None else shard(self._open_batch, self._process_group)
        )
        pages = self._gather_scores(own)
        self.quality.add_batch(
            pages.logits,
            pages.labels,
            pages.page_starts,
            user_activity=pages.user_activity,
            levels=pages.levels,
            positions=pages.positions,
            closes_at=pages.closes_at,
        )
        if own is not None and self._on_scores is not None:
            self._on_scores(BatchScores(own.batch, own.logits))
        self._train_step(own, len(pages.labels))
        self._prior_rates.update(pages.category, pages.levels, pages.labels)
        self.batches += 1
        self.pages_trained += len(self._open_batch)
        if self.config.infers_levels:
            self._newest_pages = [*self._newest_pages, *self._open_batch][-NEWEST_PAGES:]
        self._open_batch = []

    def _forward_shard(self, pages: Sequence[Example]) -> "_ScoredShard | None":
        if not pages:
            return None
        batch = self._collate(pages)
        if self._process_group is not None:
            global_size = sum(len(page.labels) for page in self._open_batch)
            batch = replace(
                batch, global_positions=shard_positions(self._open_batch, self._process_group), global_size=global_size
            )
        forward = self._model.forward(batch)
        return _ScoredShard(batch, forward, _to_numpy(forward.logits))

    def _gather_scores(self, own: "_ScoredShard | None") -> ScoredPages:
        """What is counted of the whole batch, whoever has scored it."""
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

    def _train_step(self, own: "_ScoredShard | None", impressions: int) -> None:
        """One step by the gradients of the whole batch of so many impressions."""
        gradients = self._model.zero_gradients() if own is None else self._model.gradients(own.batch, own.forward)
        self._model.step(
            gradients
            if self._process_group is None
            else all_reduce_gradients(gradients, impressions, self._process_group)
        )

    def _set_threads(self) -> None:
        # Sums over many threads round otherwise than over one; the number is part of the configuration.
        if self.config.threads and torch.get_num_threads() != self.config.threads:
            torch.set_num_threads(self.config.threads)


def _to_numpy(logits: Tensor) -> NDArray[np.float64]:
    return logits.detach().cpu().numpy().astype(np.float64)


@dataclass(frozen=True, slots=True)
class _ScoredShard:
    """The pages of a batch that are this process's, scored."""

    batch: Batch
    forward: ForwardOutput
    logits: NDArray[np.float64]


def _failure_of(own: _ScoredShard) -> str:
    """Why nothing can be learned from these scores; empty where it can."""
    for name, loss in own.forward.losses.items():
        value = float(loss.detach())
        if not np.isfinite(value):
            return (
                f"the {name} loss of a batch is {value}; nothing was learned from it. Its pages: "
                f"{', '.join(repr(request) for request in own.batch.request_ids)}. "
                "Look at their prices and counts, lower the learning rates, or start over in an empty --run-dir"
            )
    return ""


def _make_deterministic(device: torch.device) -> None:
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # As torch.use_deterministic_algorithms, which besides imports torch's compiler, for seconds; nothing is compiled.
    torch.set_deterministic_debug_mode("error")
    # Filling what is about to be written anyway costs time and changes nothing here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
