"""What the monitor knows: the newest record of each (run, rank, sequence), and the windows that they add up to.

All of it is whole numbers, and a record replaces the one before it, so what the board shows depends on the records
alone: not on how often they came, nor on which process had the board before.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.record import QualityRecord, record_key
from prectr.model.quality.sketch import PAGE_COUNT, SKETCH_WIDTH, Ints, QualitySketch, SketchState
from prectr.model.quality.windows import WINDOW_MS, SegmentStates
from prectr.ops.metrics.quality import WHOLE_RUN

WINDOWS: Final[Mapping[str, int]] = {"5m": 5, "1h": 60, "24h": 1440}
"""Stretches of each window; the newest one counts as far as it has come."""
SLOT_WINDOWS: Final = 30
"""Stretches of a point of the timeline."""
TIMELINE_SLOTS: Final = 48
_RETAINED_WINDOWS: Final = max(WINDOWS.values())
_RETIRE_BATCH: Final = 60
MAX_SOURCES: Final = 64
"""Processes whose records are kept; beyond, the one that has been silent longest is forgotten."""

SourceKey = tuple[str, int]
"""(run, rank): a process of a run."""


class StoredRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record, as it is kept. heard: when the broker took it, ms since the epoch."""

    received_at: int
    record: QualityRecord


class RetiredTotal(msgspec.Struct, frozen=True, array_like=True):
    """All that a process has published up to the stretch `upto`, added up: it is in no window any more."""

    run: str
    rank: int
    model: str
    up_to: int
    segments: SegmentStates

    @property
    def key(self) -> bytes:
        """(run, rank)."""
        return _total_key((self.run, self.rank))


class Retirement(NamedTuple):
    """To be kept from now on, and keys of the entries that are in it: to be deleted once it is kept."""

    total: RetiredTotal
    record_keys: list[bytes]


class Eviction(NamedTuple):
    """Keys to be deleted: of entries, and of the past of their process."""

    record_keys: list[bytes]
    total_key: bytes


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a run. heard: when its last record was taken, ms since the epoch; checkpoint: when the checkpoint of
    that record was written. until: end of its newest stretch, ms of event time.
    """

    run: str
    rank: int
    model: str
    received_at: int
    checkpoint_time: int
    event_time_end: int


class TimelineSlot(NamedTuple):
    """A point of the timeline: the stretches that end in (end - 30 min, end], ms of event time, by segment."""

    end: int
    segments: Mapping[str, QualitySketch]


class ModelQuality(NamedTuple):
    """Quality of a model. until: end of the newest stretch, ms of event time.

    windows: by window, the whole run among them, then by segment (all, new, low, active). timeline: of the last 24 h,
    oldest first, slots without pages left out.
    """

    event_time_end: int
    windows: Mapping[str, Mapping[str, QualitySketch]]
    timeline: list[TimelineSlot]


class _SourceState(msgspec.Struct):
    """What is kept of a process."""

    model: str
    windows: dict[int, SegmentStates]
    total: RetiredTotal | None = None
    newest: int = -1
    received_at: int = 0
    checkpoint_time: int = 0


class QualityTable:
    """Takes records in any order; says what is to be stored of them, and what they add up to."""

    def __init__(self, totals: Iterable[RetiredTotal] = ()) -> None:
        """Go on from what was stored: the pasts, then `put` all entries."""
        self._sources = {(total.run, total.rank): _SourceState(total.model, {}, total, total.up_to) for total in totals}

    def put(self, stored: StoredRecord) -> bool:
        """Take a record; whether it is to be stored: the past knows already what is in it, and takes nothing back."""
        record = stored.record
        state = self._sources.setdefault((record.run, record.rank), _SourceState(record.model, {}))
        state.received_at = max(state.received_at, stored.received_at)
        state.checkpoint_time = max(state.checkpoint_time, record.checkpoint)
        sequence = record.window.sequence
        if state.total is not None and sequence <= state.total.up_to:
            return False
        state.newest = max(state.newest, sequence)
        state.windows[sequence] = record.window.segments
        return True

    def retire(self) -> list[Retirement]:
        """Add up what is too old for any window; some at a time, for those are written and deleted together."""
        found = []
        for (run, rank), state in self._sources.items():
            if min(state.windows, default=state.newest) > state.newest - _RETAINED_WINDOWS - _RETIRE_BATCH:
                continue
            up_to = state.newest - _RETAINED_WINDOWS
            old = sorted(sequence for sequence in state.windows if sequence <= up_to)
            values = _zero_sums()
            for sequence in old:
                _add(values, state.windows.pop(sequence))
            if state.total is not None:
                _add(values, state.total.segments)
            new, low, active = (QualitySketch(row).encode() for row in values)
            state.total = RetiredTotal(run, rank, state.model, up_to, (new, low, active))
            found.append(Retirement(state.total, [record_key(run, rank, sequence) for sequence in old]))
        return found

    def evict(self) -> list[Eviction]:
        """Forget the processes that have been silent longest, where there are too many."""
        by_age = sorted(self._sources, key=lambda source: (self._sources[source].received_at, source))
        found = []
        for source in by_age[: max(0, len(by_age) - MAX_SOURCES)]:
            state = self._sources.pop(source)
            found.append(Eviction([record_key(*source, sequence) for sequence in state.windows], _total_key(source)))
        return found

    @property
    def retained_windows(self) -> int:
        """Stretches that are held."""
        return sum(len(state.windows) for state in self._sources.values())

    def sources(self) -> list[SourceStatus]:
        """Every process that has published, by name."""
        return [
            SourceStatus(
                run=run,
                rank=rank,
                model=state.model,
                received_at=state.received_at,
                checkpoint_time=state.checkpoint_time,
                event_time_end=(state.newest + 1) * WINDOW_MS,
            )
            for (run, rank), state in sorted(self._sources.items())
        ]

    def quality(self) -> dict[str, ModelQuality]:
        """By model, all of its runs together."""
        models = sorted({state.model for state in self._sources.values()})
        return {
            model: _model_quality([kept for kept in self._sources.values() if kept.model == model]) for model in models
        }


def _model_quality(runs: list[_SourceState]) -> ModelQuality:
    newest = max(kept.newest for kept in runs)
    shortest, total = _zero_sums(), _zero_sums()
    slots: Ints = np.zeros((TIMELINE_SLOTS, len(SEGMENTS), SKETCH_WIDTH), np.int64)
    for state in runs:
        if state.total is not None:
            _add(total, state.total.segments)
        for sequence, segments in state.windows.items():
            age = newest - sequence
            _add(slots[age // SLOT_WINDOWS] if age < SLOT_WINDOWS * TIMELINE_SLOTS else total, segments)
            if age < WINDOWS["5m"]:
                _add(shortest, segments)
    day = slots.sum(axis=0)
    windows = {
        "5m": shortest,
        "1h": slots[: WINDOWS["1h"] // SLOT_WINDOWS].sum(axis=0),
        "24h": day,
        WHOLE_RUN: total + day,
    }
    event_time_end = (newest + 1) * WINDOW_MS
    return ModelQuality(
        event_time_end,
        {window: _by_segment(values) for window, values in windows.items()},
        [
            TimelineSlot(event_time_end - number * SLOT_WINDOWS * WINDOW_MS, _by_segment(slots[number]))
            for number in reversed(range(TIMELINE_SLOTS))
            if slots[number, :, PAGE_COUNT].any()
        ],
    )


def _by_segment(values: Ints) -> dict[str, QualitySketch]:
    return {
        "all": QualitySketch(values.sum(axis=0)),
        **{name: QualitySketch(row) for name, row in zip(SEGMENTS, values, strict=True)},
    }


def _zero_sums() -> Ints:
    """Sums of the segments, int64[3, WIDTH]."""
    return np.zeros((len(SEGMENTS), SKETCH_WIDTH), np.int64)


def _add(values: Ints, segments: SegmentStates) -> None:
    """Add sketches that are known to be whole, without unpacking each."""
    for row, sketch in zip(values, segments, strict=True):
        if sketch.pages:
            bins, counts = _bins(sketch)
            row[bins] += counts
            row[PAGE_COUNT:] += (
                sketch.pages,
                sketch.gauc_sum,
                sketch.gauc_weight,
                sketch.loss_sum,
                sketch.predicted_sum,
            )


def _bins(sketch: SketchState) -> tuple[Ints, Ints]:
    bins = np.frombuffer(sketch.bins, "<u2").astype(np.int64)
    return bins, np.frombuffer(sketch.counts, f"<u{len(sketch.counts) // max(len(bins), 1) or 1}").astype(np.int64)


def _total_key(source: SourceKey) -> bytes:
    run, rank = source
    return f"{run}/{rank}".encode()
