"""An instrumented trainer: time per phase, losses, and quality by windows of event time.

It learns exactly what `Trainer` learns, to the last bit: instrumentation reads clocks and results only.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
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
from prectr.model.training.trainer import ScoredShard, Trainer
from prectr.state.encoding import DAMAGE
from prectr.state.errors import CheckpointError, Remedy
from prectr.stream.records import Example

QUALITY_WINDOWS: Final = "quality_windows.msgpack"
PHASES: Final = ("collate", "forward", "backward", "step")
_GRADIENT_NORM_INTERVAL: Final = 64
"""Batches between two measurements of the norm of the gradient."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(WindowBufferState).decode


class TrainerStats:
    """Statistics of a model's training since the start of the process.

    phase_seconds: host time by phase of a batch. device_busy_seconds: time in which the device computed.
    losses: nats, by part of the loss, summed over the impressions trained on. counts: sums of the model's
    `ForwardOutput.counts`. batches, impressions: trained on by this rank. gradient_norm: of the last measured batch;
    None before. latest_close: largest close time trained on (ms); None before.
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
    """A `Trainer` with statistics, and with its quality by windows, to be published.

    With several ranks, rank 0 alone keeps the windows, of the pages of all ranks.
    """

    def __init__(self, config: TrainerConfig, process_group: TorchProcessGroup | None = None) -> None:
        super().__init__(config, process_group=process_group)
        self.stats = TrainerStats()
        self.quality_windows = WindowBuffer()
        self._scored_pages = NO_PAGES
        self._is_rank_zero = process_group is None or process_group.rank == 0
        # TimedModel forwards all other attributes to the model.
        self._model = cast("OnlineModel", TimedModel(self._model, self.stats, self._device))

    def save(self, folder: Path) -> None:
        """As `Trainer.save`, with the windows to be published."""
        super().save(folder)
        (folder / QUALITY_WINDOWS).write_bytes(_encode(self.quality_windows.seal()))

    def load(self, folder: Path) -> None:
        """As `Trainer.load`; the checkpoint of a plain `Trainer` has no windows."""
        super().load(folder)
        path = folder / QUALITY_WINDOWS
        try:
            self.quality_windows = WindowBuffer(_decode(path.read_bytes()) if path.exists() else EMPTY_BUFFER)
        except (OSError, *DAMAGE) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error})", Remedy.OLDER_CHECKPOINT, Remedy.EMPTY_RUN_DIR
            ) from error

    def _collate(self, examples: Sequence[Example]) -> Batch:
        started = time.perf_counter()
        batch = super()._collate(examples)
        self.stats.phase_seconds["collate"] += time.perf_counter() - started
        return batch

    def _train_batch(self) -> None:
        # Pages are in the total order: the last one closes last.
        latest_close = self._open_batch[-1].closes_at
        super()._train_batch()
        self.stats.latest_close = latest_close
        if self._is_rank_zero and self.quality.last_update is not None:
            self.quality_windows.add(self._scored_pages, self.quality.last_update)

    def _gather_scores(self, own: ScoredShard | None) -> ScoredPages:
        self._scored_pages = super()._gather_scores(own)
        return self._scored_pages


class TimedModel:
    """A model whose forward, backward and step are timed."""

    def __init__(self, model: OnlineModel, stats: TrainerStats, device: torch.device) -> None:
        # Read for every batch: a plain attribute is faster than __getattr__.
        self.feature_needs = model.feature_needs
        self._model = model
        self._stats = stats
        self._cuda_timer = _CudaTimer(stats) if device.type == "cuda" else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, batch: Batch) -> ForwardOutput:
        """Call the model's."""
        started = self._start()
        forward = self._model.forward(batch)
        self._stop("forward", started)
        return forward

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """Call the model's."""
        started = self._start()
        gradients = self._model.gradients(batch, forward)
        self._stop("backward", started)
        stats = self._stats
        for name, loss in forward.losses.items():
            stats.losses[name] = stats.losses.get(name, 0.0) + float(loss.detach()) * batch.impressions
        for name, count in forward.counts.items():
            stats.counts[name] = stats.counts.get(name, 0) + int(count)
        stats.impressions += batch.impressions
        return gradients

    def step(self, gradients: Gradients) -> None:
        """Call the model's."""
        if self._stats.batches % _GRADIENT_NORM_INTERVAL == 0:
            self._stats.gradient_norm = _gradient_norm(gradients)
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
    """Measures the busy time of a CUDA device, which runs asynchronously to the process."""

    def __init__(self, stats: TrainerStats) -> None:
        self._stats = stats
        self._spans: deque[tuple[Any, Any]] = deque()
        self._start: Any = None

    def start(self) -> None:
        self._start = _record_event()

    def stop(self) -> None:
        self._spans.append((self._start, _record_event()))
        # Never waits for the device: work that it has not finished is counted with a later batch.
        while self._spans and self._spans[0][1].query():
            start, done = self._spans.popleft()
            self._stats.device_busy_seconds += start.elapsed_time(done) / 1000


def _record_event() -> Any:
    """Record an event in the device's stream; its time is known once the device reaches it."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _gradient_norm(gradients: Gradients) -> float:
    """Euclidean norm over dense parameters and table rows, in the scale that each is updated with."""
    parts = [gradients.dense, *(rows.values for rows in gradients.tables.values())]
    return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts))
