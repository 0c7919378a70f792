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
from prectr.model.quality.sketch import PAGES, WIDTH, Ints, QualitySketch, SketchState
from prectr.model.quality.windows import STRETCH_MS, Segments
from prectr.ops.metrics.quality import WHOLE_RUN

WINDOWS: Final[Mapping[str, int]] = {"5m": 5, "1h": 60, "24h": 1440}
"""Stretches of each window; the newest one counts as far as it has come."""
SLOT: Final = 30
"""Stretches of a point of the timeline."""
SLOTS: Final = 48
_KEPT: Final = max(WINDOWS.values())
_RETIRED_AT_ONCE: Final = 60
MOST_SOURCES: Final = 64
"""Processes whose records are kept; beyond, the one that has been silent longest is forgotten."""

Source = tuple[str, int]
"""(run, rank): a process of a run."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A record, as it is kept. heard: when the broker took it, ms since the epoch."""

    heard: int
    record: QualityRecord


class Past(msgspec.Struct, frozen=True, array_like=True):
    """All that a process has published up to the stretch `upto`, added up: it is in no window any more."""

    run: str
    rank: int
    model: str
    upto: int
    segments: Segments

    @property
    def key(self) -> bytes:
        """(run, rank)."""
        return _past_key((self.run, self.rank))


class Retired(NamedTuple):
    """To be kept from now on, and keys of the entries that are in it: to be deleted once it is kept."""

    past: Past
    entries: list[bytes]


class Forgotten(NamedTuple):
    """Keys to be deleted: of entries, and of the past of their process."""

    entries: list[bytes]
    past: bytes


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a run. heard: when its last record was taken, ms since the epoch; checkpoint: when the checkpoint of
    that record was written. until: end of its newest stretch, ms of event time.
    """

    run: str
    rank: int
    model: str
    heard: int
    checkpoint: int
    until: int


class Slot(NamedTuple):
    """A point of the timeline: the stretches that end in (end - 30 min, end], ms of event time, by segment."""

    end: int
    segments: Mapping[str, QualitySketch]


class ModelQuality(NamedTuple):
    """Quality of a model. until: end of the newest stretch, ms of event time.

    windows: by window, the whole run among them, then by segment (all, new, low, active). timeline: of the last 24 h,
    oldest first, slots without pages left out.
    """

    until: int
    windows: Mapping[str, Mapping[str, QualitySketch]]
    timeline: list[Slot]


class _Kept(msgspec.Struct):
    """What is kept of a process."""

    model: str
    stretches: dict[int, Segments]
    past: Past | None = None
    newest: int = -1
    heard: int = 0
    checkpoint: int = 0


class Board:
    """Takes records in any order; says what is to be stored of them, and what they add up to."""

    def __init__(self, pasts: Iterable[Past] = ()) -> None:
        """Go on from what was stored: the pasts, then `put` all entries."""
        self._sources = {(past.run, past.rank): _Kept(past.model, {}, past, past.upto) for past in pasts}

    def put(self, entry: Entry) -> bool:
        """Take a record; whether it is to be stored: the past knows already what is in it, and takes nothing back."""
        record = entry.record
        kept = self._sources.setdefault((record.run, record.rank), _Kept(record.model, {}))
        kept.heard = max(kept.heard, entry.heard)
        kept.checkpoint = max(kept.checkpoint, record.checkpoint)
        sequence = record.stretch.sequence
        if kept.past is not None and sequence <= kept.past.upto:
            return False
        kept.newest = max(kept.newest, sequence)
        kept.stretches[sequence] = record.stretch.segments
        return True

    def retire(self) -> list[Retired]:
        """Add up what is too old for any window; some at a time, for those are written and deleted together."""
        found = []
        for (run, rank), kept in self._sources.items():
            if min(kept.stretches, default=kept.newest) > kept.newest - _KEPT - _RETIRED_AT_ONCE:
                continue
            upto = kept.newest - _KEPT
            old = sorted(sequence for sequence in kept.stretches if sequence <= upto)
            values = _nothing()
            for sequence in old:
                _add(values, kept.stretches.pop(sequence))
            if kept.past is not None:
                _add(values, kept.past.segments)
            new, low, active = (QualitySketch(row).encode() for row in values)
            kept.past = Past(run, rank, kept.model, upto, (new, low, active))
            found.append(Retired(kept.past, [record_key(run, rank, sequence) for sequence in old]))
        return found

    def forget(self) -> list[Forgotten]:
        """Forget the processes that have been silent longest, where there are too many."""
        by_silence = sorted(self._sources, key=lambda source: (self._sources[source].heard, source))
        found = []
        for source in by_silence[: max(0, len(by_silence) - MOST_SOURCES)]:
            kept = self._sources.pop(source)
            found.append(Forgotten([record_key(*source, sequence) for sequence in kept.stretches], _past_key(source)))
        return found

    @property
    def stretches(self) -> int:
        """Stretches that are held."""
        return sum(len(kept.stretches) for kept in self._sources.values())

    def sources(self) -> list[SourceFacts]:
        """Every process that has published, by name."""
        return [
            SourceFacts(
                run=run,
                rank=rank,
                model=kept.model,
                heard=kept.heard,
                checkpoint=kept.checkpoint,
                until=(kept.newest + 1) * STRETCH_MS,
            )
            for (run, rank), kept in sorted(self._sources.items())
        ]

    def quality(self) -> dict[str, ModelQuality]:
        """By model, all of its runs together."""
        models = sorted({kept.model for kept in self._sources.values()})
        return {model: _quality([kept for kept in self._sources.values() if kept.model == model]) for model in models}


def _quality(runs: list[_Kept]) -> ModelQuality:
    newest = max(kept.newest for kept in runs)
    shortest, whole = _nothing(), _nothing()
    slots: Ints = np.zeros((SLOTS, len(SEGMENTS), WIDTH), np.int64)
    for kept in runs:
        if kept.past is not None:
            _add(whole, kept.past.segments)
        for sequence, segments in kept.stretches.items():
            age = newest - sequence
            _add(slots[age // SLOT] if age < SLOT * SLOTS else whole, segments)
            if age < WINDOWS["5m"]:
                _add(shortest, segments)
    day = slots.sum(axis=0)
    windows = {"5m": shortest, "1h": slots[: WINDOWS["1h"] // SLOT].sum(axis=0), "24h": day, WHOLE_RUN: whole + day}
    until = (newest + 1) * STRETCH_MS
    return ModelQuality(
        until,
        {window: _by_segment(values) for window, values in windows.items()},
        [
            Slot(until - number * SLOT * STRETCH_MS, _by_segment(slots[number]))
            for number in reversed(range(SLOTS))
            if slots[number, :, PAGES].any()
        ],
    )


def _by_segment(values: Ints) -> dict[str, QualitySketch]:
    return {
        "all": QualitySketch(values.sum(axis=0)),
        **{name: QualitySketch(row) for name, row in zip(SEGMENTS, values, strict=True)},
    }


def _nothing() -> Ints:
    """Sums of the segments, int64[3, WIDTH]."""
    return np.zeros((len(SEGMENTS), WIDTH), np.int64)


def _add(values: Ints, segments: Segments) -> None:
    """Add sketches that are known to be whole, without unpacking each."""
    for row, state in zip(values, segments, strict=True):
        if state.pages:
            bins, counts = _bins(state)
            row[bins] += counts
            row[PAGES:] += (state.pages, state.gauc_sum, state.gauc_weight, state.loss_sum, state.predicted_sum)


def _bins(state: SketchState) -> tuple[Ints, Ints]:
    bins = np.frombuffer(state.bins, "<u2").astype(np.int64)
    return bins, np.frombuffer(state.counts, f"<u{len(state.counts) // max(len(bins), 1) or 1}").astype(np.int64)


def _past_key(source: Source) -> bytes:
    run, rank = source
    return f"{run}/{rank}".encode()
