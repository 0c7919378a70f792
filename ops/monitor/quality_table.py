"""The monitor's state: the newest record of each (run, rank, sequence), and the windows that they sum to.

All sums are of integers, and a record replaces its predecessor, so the table depends on the records alone: not on how
often they were received, nor on which process held the table before.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from prectr.model.quality.quality import SEGMENTS
from prectr.model.quality.record import InvalidQualityRecord, QualityRecord, record_key
from prectr.model.quality.sketch import MAX_SUM, PAGE_COUNT, SKETCH_WIDTH, Ints, QualitySketch, SketchState
from prectr.model.quality.windows import WINDOW_MS, SegmentStates, segments_bytes
from prectr.ops.metrics.quality import WHOLE_RUN
from prectr.stream.events.contract import MAX_ITEMS

WINDOWS: Final[Mapping[str, int]] = {"5m": 5, "1h": 60, "24h": 1440}
"""Number of quality windows (60 s) of each window; the newest, incomplete one counts."""
SLOT_WINDOWS: Final = 30
"""Number of quality windows (60 s) of a point of the timeline."""
TIMELINE_SLOTS: Final = 48
_RETAINED_WINDOWS: Final = max(WINDOWS.values())
_RETIRE_BATCH: Final = 60
MAX_SOURCES: Final = 64
"""Number of trainers whose records are kept; beyond it the one without records for longest is evicted."""
MAX_BYTES: Final = 128 << 20
"""Memory of all windows; beyond it trainers are evicted as beyond MAX_SOURCES."""
EVICTABLE_AFTER_MS: Final = 3_600_000
"""A trainer is not evicted before it has been silent for this long: others are refused, so that whoever publishes under
thousands of names evicts nobody."""

SourceKey = tuple[str, int]
"""(run, rank): a trainer process."""


class StoredRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record as stored. received_at: its timestamp by the broker, ms since the epoch."""

    received_at: int
    record: QualityRecord


class RetiredTotal(msgspec.Struct, frozen=True, array_like=True):
    """The sum of all that a trainer has published up to the quality window `up_to`, which no window contains."""

    run: str
    rank: int
    model: str
    up_to: int
    segments: SegmentStates

    @property
    def key(self) -> bytes:
        """The key of (run, rank)."""
        return _total_key((self.run, self.rank))


class Retirement(NamedTuple):
    """A total to store, and the keys of the records that it contains, to delete once it is stored."""

    total: RetiredTotal
    record_keys: list[bytes]


class Eviction(NamedTuple):
    """Keys to delete: those of the records and of the total of a trainer."""

    record_keys: list[bytes]
    total_key: bytes


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A trainer process.

    received_at: of its last record, ms since the epoch. checkpoint_time: of its newest published checkpoint, ms since
    the epoch. event_time_end: end of its newest quality window, ms of event time.
    """

    run: str
    rank: int
    model: str
    received_at: int
    checkpoint_time: int
    event_time_end: int


class TimelineSlot(NamedTuple):
    """A point of the timeline: the quality windows that end in (end - 30 min, end], ms of event time, by segment."""

    end: int
    segments: Mapping[str, QualitySketch]


class ModelQuality(NamedTuple):
    """Quality of a model.

    event_time_end: end of the newest quality window, ms of event time. windows: by window, including the whole run,
    then by segment (all, new, low, active). timeline: of the last 24 h, oldest first, without empty slots.
    """

    event_time_end: int
    windows: Mapping[str, Mapping[str, QualitySketch]]
    timeline: list[TimelineSlot]


class _SourceState(msgspec.Struct):
    """The state of a trainer.

    bytes: memory of its windows. largest_sum: bound of every element of the sum of all its sketches.
    """

    model: str
    windows: dict[int, SegmentStates]
    total: RetiredTotal | None = None
    newest: int = -1
    received_at: int = 0
    checkpoint_time: int = 0
    bytes: int = 0
    largest_sum: int = 0


class QualityTable:
    """Takes records in any order; decides which are stored, and sums them up by window."""

    def __init__(self, totals: Iterable[RetiredTotal] = ()) -> None:
        """Restore from stored totals; then `put` all stored records."""
        self._sources = {
            (total.run, total.rank): _SourceState(
                total.model, {}, total, total.up_to, largest_sum=_largest_sum(total.segments)
            )
            for total in totals
        }

    def check_room(self, stored: StoredRecord) -> None:
        """Check that a record fits: after `put` and `evict`, trainers, memory and sums are within their limits.

        Raises:
            InvalidQualityRecord: there is no room, and no other trainer has been silent for an hour.
        """
        record = stored.record
        source, segments = (record.run, record.rank), record.window.segments
        state = self._sources.get(source)
        replaced = None if state is None else state.windows.get(record.window.sequence)
        added = _largest_sum(segments) - (0 if replaced is None else _largest_sum(replaced))
        total = sum(other.largest_sum for other in self._sources.values() if other.model == record.model)
        if total + added > MAX_SUM:
            raise InvalidQualityRecord(
                "limit", f"the sums of {record.model} would exceed {MAX_SUM}: no trainer has seen as many impressions"
            )
        grown = segments_bytes(segments) - (0 if replaced is None else segments_bytes(replaced))
        if self._fits(len(self._sources) + (state is None), self._bytes + grown):
            return
        # What remains once every trainer that may be evicted is gone.
        active = [
            other
            for name, other in self._sources.items()
            if name == source or other.received_at >= stored.received_at - EVICTABLE_AFTER_MS
        ]
        if not self._fits(len(active) + (state is None), sum(other.bytes for other in active) + grown):
            raise InvalidQualityRecord(
                "limit",
                f"no room for run {record.run}: {len(active)} trainers have published within the last hour, and their "
                f"windows take {sum(other.bytes for other in active):,} bytes; there is room for {MAX_SOURCES} "
                f"trainers and {MAX_BYTES:,} bytes",
            )

    @property
    def _bytes(self) -> int:
        return sum(state.bytes for state in self._sources.values())

    @staticmethod
    def _fits(sources: int, size: int) -> bool:
        return sources <= MAX_SOURCES and size <= MAX_BYTES

    def put(self, stored: StoredRecord) -> bool:
        """Add a record; returns whether to store it. A record that a total contains already is ignored."""
        record = stored.record
        state = self._sources.setdefault((record.run, record.rank), _SourceState(record.model, {}))
        state.received_at = max(state.received_at, stored.received_at)
        state.checkpoint_time = max(state.checkpoint_time, record.checkpoint)
        sequence = record.window.sequence
        if state.total is not None and sequence <= state.total.up_to:
            return False
        state.newest = max(state.newest, sequence)
        replaced = state.windows.get(sequence)
        if replaced is not None:
            state.largest_sum -= _largest_sum(replaced)
            state.bytes -= segments_bytes(replaced)
        state.windows[sequence] = record.window.segments
        state.largest_sum += _largest_sum(record.window.segments)
        state.bytes += segments_bytes(record.window.segments)
        return True

    def retire(self) -> list[Retirement]:
        """Sum up records that are too old for any window, in batches, as they are written and deleted together."""
        found = []
        for (run, rank), state in self._sources.items():
            if min(state.windows, default=state.newest) > state.newest - _RETAINED_WINDOWS - _RETIRE_BATCH:
                continue
            up_to = state.newest - _RETAINED_WINDOWS
            old = sorted(sequence for sequence in state.windows if sequence <= up_to)
            values = _zero_sums()
            for sequence in old:
                segments = state.windows.pop(sequence)
                state.bytes -= segments_bytes(segments)
                _add(values, segments)
            if state.total is not None:
                _add(values, state.total.segments)
            new, low, active = (QualitySketch(row).encode() for row in values)
            state.total = RetiredTotal(run, rank, state.model, up_to, (new, low, active))
            found.append(Retirement(state.total, [record_key(run, rank, sequence) for sequence in old]))
        return found

    def evict(self) -> list[Eviction]:
        """Evict the trainers without records for longest, if there are more than MAX_SOURCES or MAX_BYTES."""
        found = []
        while not self._fits(len(self._sources), self._bytes):
            source = min(self._sources, key=lambda source: (self._sources[source].received_at, source))
            state = self._sources.pop(source)
            found.append(Eviction([record_key(*source, sequence) for sequence in state.windows], _total_key(source)))
        return found

    @property
    def retained_windows(self) -> int:
        """Number of quality windows held."""
        return sum(len(state.windows) for state in self._sources.values())

    def sources(self) -> list[SourceStatus]:
        """Every trainer that has published, sorted by run and rank."""
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
        """Quality by model, over all of its runs."""
        models = sorted({state.model for state in self._sources.values()})
        return {
            model: _model_quality([state for state in self._sources.values() if state.model == model])
            for model in models
        }


def _model_quality(runs: list[_SourceState]) -> ModelQuality:
    newest = max(state.newest for state in runs)
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
    """Zeros of shape [segments, SKETCH_WIDTH], int64."""
    return np.zeros((len(SEGMENTS), SKETCH_WIDTH), np.int64)


def _add(values: Ints, segments: SegmentStates) -> None:
    """Add encoded sketches without decoding each; they must be valid."""
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


def _largest_sum(segments: SegmentStates) -> int:
    """A bound of every element of the sum of the sketches."""
    return sum(
        max(sketch.pages * MAX_ITEMS, sketch.gauc_sum, sketch.loss_sum, sketch.predicted_sum) for sketch in segments
    )


def _total_key(source: SourceKey) -> bytes:
    run, rank = source
    return f"{run}/{rank}".encode()
