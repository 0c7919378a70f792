"""Quality by tumbling windows of 60 s of close time, as it is published, one record per window and model.

Boundaries are in event time, so a window is the same however often its trainer restarts, and a record that is sent
again replaces the one before. Sketches add up, so any longer window is the sum of these.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from prectr.model.quality.quality import ACTIVE, LOW_ACTIVITY, SEGMENTS
from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import (
    PAGE_COUNT,
    SKETCH_VERSION,
    Ints,
    QualitySketch,
    SketchState,
    SketchUpdate,
    sketch_update,
)

WINDOW_MS: Final = 60_000
MAX_BUFFERED_BYTES: Final = 192 << 20
"""Limit of the windows buffered for publishing; the oldest are dropped first. A long log with a page per minute,
trained at full speed, produces less than this between two checkpoints."""
_OVERHEAD_BYTES: Final = 800
"""Memory of a window besides its bins and counts, in bytes."""
_COUNT_BATCH: Final = 8_192
"""Impressions counted at once: the overhead of a small batch is many times the cost of its impressions."""
_ACTIVITY_BOUNDS: Final = np.array([LOW_ACTIVITY, ACTIVE])

_EMPTY_SKETCH: Final = QualitySketch().encode()

_ScoredBatch = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints]
"""Of a batch: column, loss, predicted, gauc, gauc_weight of its `SketchUpdate`; page_sizes, user_activity, closes_at
of its `ScoredPages`."""
SegmentStates = tuple[SketchState, SketchState, SketchState]
"""Sketches of new, low and active."""


class QualityWindow(msgspec.Struct, frozen=True, array_like=True):
    """Quality of the pages whose close time lies in [sequence, sequence + 1) x 60 s."""

    sequence: int
    segments: SegmentStates


class WindowBufferState(msgspec.Struct, frozen=True, array_like=True):
    """pending: windows to be published, in order. latest: the last window with pages, published or not."""

    pending: tuple[QualityWindow, ...] = ()
    latest: QualityWindow | None = None


EMPTY_BUFFER: Final = WindowBufferState()


class WindowBuffer:
    """Counts scored pages by window, and keeps each window until it is acknowledged as published.

    Only windows in `sealed`, which are part of a checkpoint, may be published: a trainer that resumes from the
    checkpoint then never retracts anything. The latest window is published incomplete, and again when it has more.

    sealed: the state as of the last `seal`. dropped: windows that were never published because the buffer was full.
    """

    def __init__(self, state: WindowBufferState = EMPTY_BUFFER) -> None:
        """Resume from `state`."""
        self._batches: list[_ScoredBatch] = []
        self._impressions = 0
        self._pending = {window.sequence: window for window in state.pending}
        self._buffered_bytes = sum(map(_size_bytes, state.pending))
        self._latest = state.latest
        self.sealed = state
        self.dropped = 0

    def add(self, pages: ScoredPages, update: SketchUpdate) -> None:
        """Count the pages of the next batch; batches come in the total order, pages within a batch in any.

        update: the `sketch_update` of the batch, which the caller has computed anyway.
        """
        self._batches.append((*update, pages.page_sizes, pages.user_activity, pages.closes_at))
        self._impressions += len(pages.labels)
        if self._impressions >= _COUNT_BATCH:
            self._count_batches()

    def seal(self) -> WindowBufferState:
        """Count everything added so far, and return the state to be saved."""
        self._count_batches()
        self.sealed = WindowBufferState(tuple(self._pending.values()), self._latest)
        return self.sealed

    def acknowledge(self, windows: Iterable[QualityWindow]) -> None:
        """Drop windows that have been published, except those that have received more pages since."""
        for window in windows:
            if self._pending.get(window.sequence) == window:
                self._drop(window.sequence)
        self.sealed = WindowBufferState(
            tuple(window for window in self.sealed.pending if window.sequence in self._pending), self.sealed.latest
        )

    def _count_batches(self) -> None:
        if not self._batches:
            return
        batches, self._batches, self._impressions = self._batches, [], 0
        for window in _windows_of(*map(np.concatenate, zip(*batches, strict=True))):
            previous = self._latest
            same_window = previous is not None and previous.sequence == window.sequence
            self._latest = (
                QualityWindow(window.sequence, _merge_segments(previous.segments, window.segments))
                if previous and same_window
                else window
            )
            self._drop(window.sequence)
            self._pending[window.sequence] = self._latest
            self._buffered_bytes += _size_bytes(self._latest)
        while self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._drop(next(iter(self._pending)))
            self.dropped += 1

    def _drop(self, sequence: int) -> None:
        window = self._pending.pop(sequence, None)
        if window is not None:
            self._buffered_bytes -= _size_bytes(window)


def windows_of(pages: ScoredPages) -> list[QualityWindow]:
    """The windows of some pages, in order, each with the contribution of these pages."""
    update = sketch_update(pages.logits, pages.labels, pages.page_starts)
    return _windows_of(*update, pages.page_sizes, pages.user_activity, pages.closes_at)


def _windows_of(
    column: Ints,
    loss: Ints,
    predicted: Ints,
    gauc: Ints,
    gauc_weight: Ints,
    sizes: Ints,
    activity: Ints,
    closes_at: Ints,
) -> list[QualityWindow]:
    """As `windows_of`, from the arrays of a `_ScoredBatch`.

    Equal to adding every page to a `QualitySketch` of its window and segment, but its cost depends on the impressions
    alone: most windows of a long log have few pages, and a sketch has 2,048 bins.
    """
    sequences, inverse = np.unique(closes_at // WINDOW_MS, return_inverse=True)
    group = inverse * len(SEGMENTS) + np.searchsorted(_ACTIVITY_BOUNDS, activity, side="right")
    groups = len(sequences) * len(SEGMENTS)
    group_of = group.repeat(sizes)
    cells, counts = np.unique(group_of * PAGE_COUNT + column, return_counts=True)
    ends = np.searchsorted(cells, np.arange(1, groups + 1) * PAGE_COUNT).tolist()
    bins = (cells % PAGE_COUNT).astype("<u2").tobytes()
    all_counts = counts.astype("u1").tobytes() if int(counts.max()) < 1 << 8 else None
    sums = np.zeros((groups, 5), np.int64)
    np.add.at(sums[:, 0], group, 1)
    np.add.at(sums[:, 1], group, gauc)
    np.add.at(sums[:, 2], group, gauc_weight)
    np.add.at(sums[:, 3], group_of, loss)
    np.add.at(sums[:, 4], group_of, predicted)
    states = []
    start = 0
    for end, totals in zip(ends, sums.tolist(), strict=True):
        if start == end:
            states.append(_EMPTY_SKETCH)
            continue
        packed_counts = all_counts[start:end] if all_counts is not None else _pack_counts(counts[start:end])
        states.append(SketchState(SKETCH_VERSION, bins[2 * start : 2 * end], packed_counts, *totals))
        start = end
    return [
        QualityWindow(number, (states[first], states[first + 1], states[first + 2]))
        for number, first in zip(sequences.tolist(), range(0, groups, len(SEGMENTS)), strict=True)
    ]


def segments_bytes(segments: SegmentStates) -> int:
    """Memory of the sketches of a window, in bytes."""
    return _OVERHEAD_BYTES + sum(len(state.bins) + len(state.counts) for state in segments)


def _size_bytes(window: QualityWindow) -> int:
    return segments_bytes(window.segments)


def _pack_counts(counts: Ints) -> bytes:
    """Counts in the smallest integer type that holds all of them, as in `QualitySketch.encode`."""
    largest = int(counts.max())
    size = next(size for size in (1, 2, 4, 8) if largest < 1 << (8 * size))
    return counts.astype(f"<u{size}").tobytes()


def _merge_segments(one: SegmentStates, other: SegmentStates) -> SegmentStates:
    new, low, active = (
        QualitySketch.total(map(QualitySketch.decode, pair)).encode() for pair in zip(one, other, strict=True)
    )
    return new, low, active
