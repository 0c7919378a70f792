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
from prectr.model.distributed.process_group import Ranks
from prectr.model.features.batch import Batch
from prectr.model.layers.gradients import Gradients
from prectr.model.models.online_model import Forward, OnlineModel
from prectr.model.quality.scored_pages import NOTHING, Measured
from prectr.model.quality.windows import NO_STRETCHES, Stretches, StretchesState
from prectr.model.training.trainer import Trainer
from prectr.state.errors import CheckpointError
from prectr.stream.records import Example

STRETCHES: Final = "stretches.msgpack"
STEPS: Final = ("collate", "forward", "backward", "step")
_NORM_EVERY: Final = 64
"""Batches between two looks at the norm of the gradient."""


class Watch:
    """What has been seen of a model's learning, since the start of the process.

    seconds: by step of a batch. busy: of these, and of what the device went on with, those in which it computed.
    losses: nats, by part of the loss, summed over the impressions learned from. counts: of what the model counts of
    its batches, by name. batches, impressions: learned from, of this rank. gradient_norm: of the last batch that was
    looked at; None before. newest: largest effective close learned from (ms); None before.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.busy = 0.0
        self.losses: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.batches = 0
        self.impressions = 0
        self.gradient_norm: float | None = None
        self.newest: int | None = None


class WatchedTrainer(Trainer):
    """A `Trainer` that says where its time goes and keeps its quality by stretches, to be published.

    Several ranks: the first alone keeps stretches, and counts all pages.
    """

    def __init__(self, config: TrainerConfig, ranks: Ranks | None = None) -> None:
        super().__init__(config, ranks=ranks)
        self.watch = Watch()
        self.stretches = Stretches()
        self._counted = NOTHING
        self._leads = ranks is None or ranks.rank == 0
        # What else a model has is asked of the model itself.
        self._model = cast("OnlineModel", Timed(self._model, self.watch, self._device))

    def save(self, folder: Path) -> None:
        """As `Trainer.save`; with the stretches that are to be published."""
        super().save(folder)
        (folder / STRETCHES).write_bytes(_encode(self.stretches.settle()))

    def load(self, folder: Path) -> None:
        """As `Trainer.load`; a checkpoint of a trainer that nobody watched has no stretches."""
        super().load(folder)
        path = folder / STRETCHES
        try:
            self.stretches = Stretches(_decode(path.read_bytes()) if path.exists() else NO_STRETCHES)
        except (OSError, msgspec.DecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): take an older checkpoint, or start over in an empty --run-dir"
            ) from error

    def _encode(self, examples: Sequence[Example]) -> Batch:
        begun = time.perf_counter()
        batch = super()._encode(examples)
        self.watch.seconds["collate"] += time.perf_counter() - begun
        return batch

    def _train_open(self) -> None:
        super()._train_open()
        if self._leads and self.quality.scored is not None:
            self.stretches.add(self._counted, self.quality.scored)

    def _measure(self, own: Any) -> Measured:
        self._counted = counted = super()._measure(own)
        # The pages come in order.
        self.watch.newest = self._open[-1].closes_at
        return counted


class Timed:
    """A model whose calls are timed."""

    def __init__(self, model: OnlineModel, watch: Watch, device: torch.device) -> None:
        # Asked with every batch.
        self.reads = model.reads
        self._model = model
        self._watch = watch
        self._device = _Device(watch) if device.type == "cuda" else None
        self._kept: Set[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, batch: Batch) -> Forward:
        """As the model's."""
        begun = self._begin()
        forward = self._model.forward(batch)
        self._end("forward", begun)
        return forward

    def gradients(self, batch: Batch, forward: Forward) -> Gradients:
        """As the model's."""
        begun = self._begin()
        gradients = self._model.gradients(batch, forward)
        self._end("backward", begun)
        watch = self._watch
        for name, loss in forward.losses.items():
            watch.losses[name] = watch.losses.get(name, 0.0) + float(loss.detach()) * batch.impressions
        for name, count in forward.counts.items():
            watch.counts[name] = watch.counts.get(name, 0) + int(count)
        watch.impressions += batch.impressions
        # What a batch adds to tables that are not trained travels with the gradients, and is none.
        self._kept = forward.kept.keys()
        return gradients

    def step(self, gradients: Gradients) -> None:
        """As the model's."""
        if self._watch.batches % _NORM_EVERY == 0:
            self._watch.gradient_norm = _norm(gradients, self._kept)
        self._watch.batches += 1
        begun = self._begin()
        self._model.step(gradients)
        self._end("step", begun)

    def _begin(self) -> float:
        if self._device is not None:
            self._device.begin()
        return time.perf_counter()

    def _end(self, step: str, begun: float) -> None:
        seconds = time.perf_counter() - begun
        self._watch.seconds[step] += seconds
        if self._device is None:
            self._watch.busy += seconds
        else:
            self._device.end()


class _Device:
    """Clocks a CUDA device, which works on while the process that has told it what to do does something else."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._spans: deque[tuple[Any, Any]] = deque()
        self._start: Any = None

    def begin(self) -> None:
        self._start = _mark()

    def end(self) -> None:
        self._spans.append((self._start, _mark()))
        # Never waits for the device: what it has not done yet is counted with a later batch.
        while self._spans and self._spans[0][1].query():
            start, done = self._spans.popleft()
            self._watch.busy += start.elapsed_time(done) / 1000


def _mark() -> Any:
    """A point in what the device has been told to do; its time is known once the device is there."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _norm(gradients: Gradients, kept: Set[str]) -> float:
    """Euclidean norm over dense parameters and rows, each as the model steps by it; without the tables `kept`."""
    parts = [gradients.dense, *(rows.gradient for name, rows in gradients.tables.items() if name not in kept)]
    return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts))


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(StretchesState).decode
