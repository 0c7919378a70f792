"""A trainer that is watched while it learns: where its time goes, what its losses are, and quality by stretches.

What it learns is what `Trainer` learns, to the last bit: watching reads clocks and results, and changes nothing.
"""

import math
import time
from collections import deque
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import torch

from prectr.model.config import TrainerConfig
from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.features.batch import Batch
from prectr.model.layers.gradients import Gradients
from prectr.model.models.online_model import ForwardOutput, OnlineModel
from prectr.model.quality.scored_pages import NO_PAGES, ScoredPages
from prectr.model.quality.windows import EMPTY_BUFFER, WindowBuffer, WindowBufferState
from prectr.model.training.trainer import Trainer
from prectr.state.errors import CheckpointError
from prectr.stream.records import Example

QUALITY_WINDOWS: Final = "quality_windows.msgpack"
PHASES: Final = ("collate", "forward", "backward", "step")
_GRADIENT_NORM_INTERVAL: Final = 64
"""Batches between two looks at the norm of the gradient."""


class TrainerStats:
    """What has been seen of a model's learning, since the start of the process.

    seconds: by step of a batch. busy: of these, and of what the device went on with, those in which it computed.
    losses: nats, by part of the loss, summed over the impressions learned from. counts: of what the model counts of
    its batches, by name. batches, impressions: learned from, of this rank. gradient_norm: of the last batch that was
    looked at; None before. newest: largest effective close learned from (ms); None before.
    """

    def __init__(self) -> None:
        self.phase_seconds = dict.fromkeys(PHASES, 0.0)
        self.device_busy_seconds = 0.0
        self.losses: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.batches = 0
        self.impressions = 0
        self.gradient_norm: float | None = None
        self.latest_close: int | None = None


class InstrumentedTrainer(Trainer):
    """A `Trainer` that says where its time goes and keeps its quality by stretches, to be published.

    Several ranks: the first alone keeps stretches, and counts all pages.
    """

    def __init__(self, config: TrainerConfig, process_group: TorchProcessGroup | None = None) -> None:
        super().__init__(config, process_group=process_group)
        self.stats = TrainerStats()
        self.quality_windows = WindowBuffer()
        self._scored_pages = NO_PAGES
        self._is_rank_zero = process_group is None or process_group.rank == 0
        # What else a model has is asked of the model itself.
        self._model = cast("OnlineModel", TimedModel(self._model, self.stats, self._device))

    def save(self, folder: Path) -> None:
        """As `Trainer.save`; with the stretches that are to be published."""
        super().save(folder)
        (folder / QUALITY_WINDOWS).write_bytes(_encode(self.quality_windows.seal()))

    def load(self, folder: Path) -> None:
        """As `Trainer.load`; a checkpoint of a trainer that nobody watched has no stretches."""
        super().load(folder)
        path = folder / QUALITY_WINDOWS
        try:
            self.quality_windows = WindowBuffer(_decode(path.read_bytes()) if path.exists() else EMPTY_BUFFER)
        except (OSError, msgspec.DecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): take an older checkpoint, or start over in an empty --run-dir"
            ) from error

    def _collate(self, examples: Sequence[Example]) -> Batch:
        started = time.perf_counter()
        batch = super()._collate(examples)
        self.stats.phase_seconds["collate"] += time.perf_counter() - started
        return batch

    def _train_batch(self) -> None:
        super()._train_batch()
        if self._is_rank_zero and self.quality.last_update is not None:
            self.quality_windows.add(self._scored_pages, self.quality.last_update)

    def _gather_scores(self, own: Any) -> ScoredPages:
        self._scored_pages = pages = super()._gather_scores(own)
        # The pages come in order.
        self.stats.latest_close = self._open_batch[-1].closes_at
        return pages


class TimedModel:
    """A model whose calls are timed."""

    def __init__(self, model: OnlineModel, stats: TrainerStats, device: torch.device) -> None:
        # Asked with every batch.
        self.feature_needs = model.feature_needs
        self._model = model
        self._stats = stats
        self._cuda_timer = _CudaTimer(stats) if device.type == "cuda" else None
        self._state_tables: Set[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, batch: Batch) -> ForwardOutput:
        """As the model's."""
        started = self._start()
        forward = self._model.forward(batch)
        self._stop("forward", started)
        return forward

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """As the model's."""
        started = self._start()
        gradients = self._model.gradients(batch, forward)
        self._stop("backward", started)
        stats = self._stats
        for name, loss in forward.losses.items():
            stats.losses[name] = stats.losses.get(name, 0.0) + float(loss.detach()) * batch.impressions
        for name, count in forward.counts.items():
            stats.counts[name] = stats.counts.get(name, 0) + int(count)
        stats.impressions += batch.impressions
        # What a batch adds to tables that are not trained travels with the gradients, and is none.
        self._state_tables = forward.state_updates.keys()
        return gradients

    def step(self, gradients: Gradients) -> None:
        """As the model's."""
        if self._stats.batches % _GRADIENT_NORM_INTERVAL == 0:
            self._stats.gradient_norm = _gradient_norm(gradients, self._state_tables)
        self._stats.batches += 1
        started = self._start()
        self._model.step(gradients)
        self._stop("step", started)

    def _start(self) -> float:
        if self._cuda_timer is not None:
            self._cuda_timer.start()
        return time.perf_counter()

    def _stop(self, phase: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._stats.phase_seconds[phase] += seconds
        if self._cuda_timer is None:
            self._stats.device_busy_seconds += seconds
        else:
            self._cuda_timer.stop()


class _CudaTimer:
    """Clocks a CUDA device, which works on while the process that has told it what to do does something else."""

    def __init__(self, stats: TrainerStats) -> None:
        self._stats = stats
        self._spans: deque[tuple[Any, Any]] = deque()
        self._start: Any = None

    def start(self) -> None:
        self._start = _record_event()

    def stop(self) -> None:
        self._spans.append((self._start, _record_event()))
        # Never waits for the device: what it has not done yet is counted with a later batch.
        while self._spans and self._spans[0][1].query():
            start, done = self._spans.popleft()
            self._stats.device_busy_seconds += start.elapsed_time(done) / 1000


def _record_event() -> Any:
    """A point in what the device has been told to do; its time is known once the device is there."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _gradient_norm(gradients: Gradients, state_tables: Set[str]) -> float:
    """Euclidean norm over dense parameters and rows, each as the model steps by it; without the tables `kept`."""
    parts = [gradients.dense, *(rows.values for name, rows in gradients.tables.items() if name not in state_tables)]
    return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts))


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(WindowBufferState).decode
