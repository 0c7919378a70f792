"""Quality by stretches of the one order, as it is published: one record a minute of effective close and model.

The boundaries are those of event time, so a stretch is the same however often its trainer restarts, and a record that
is sent again replaces the one before. Sketches add, so any window is the sum of its stretches.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from prectr.model.quality.quality import ACTIVE, LOW_ACTIVITY, SEGMENTS
from prectr.model.quality.scored_pages import Measured
from prectr.model.quality.sketch import PAGES, SKETCH_VERSION, Ints, QualitySketch, Scored, SketchState, score

STRETCH_MS: Final = 60_000
MOST_WAITING: Final = 192 << 20
"""Bytes of stretches that wait to be published, at most: of a long log with a page a minute, learned as fast as it
goes, more than come between two checkpoints. The oldest go first."""
_BESIDE: Final = 800
"""Bytes that a stretch takes up beside its bins and counts."""
_TOGETHER: Final = 8_192
"""Impressions that are counted at a time: by itself, a small batch costs many times what its impressions do."""
_ACTIVITY_BOUNDS: Final = np.array([LOW_ACTIVITY, ACTIVE])

_Part = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints]
"""Of a batch: column, loss, predicted, gauc, gauc_weight, as `Scored` has them, and sizes, activity, closes_at, as
`Measured` has them."""
Segments = tuple[SketchState, SketchState, SketchState]
"""Sketches of new, low and active."""


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """The pages whose effective close (ms) lies in [sequence, sequence + 1) x 60 s."""

    sequence: int
    segments: Segments


class StretchesState(msgspec.Struct, frozen=True, array_like=True):
    """waiting: stretches to be published, in order. newest: the last that has pages, published or not."""

    waiting: tuple[Stretch, ...] = ()
    newest: Stretch | None = None


NO_STRETCHES: Final = StretchesState()


class Stretches:
    """Counts scored pages by stretch, and keeps each stretch until it is known to be published.

    Only what is `settled`, and lies in a checkpoint, is to be published: a trainer that falls back to the checkpoint
    never takes anything back. The newest stretch is published as far as it has come, and again when it has more.

    settled: as of the last `settle`. dropped: stretches that were never published, since too many waited.
    """

    def __init__(self, state: StretchesState = NO_STRETCHES) -> None:
        """Go on from `state`."""
        self._parts: list[_Part] = []
        self._impressions = 0
        self._waiting = {stretch.sequence: stretch for stretch in state.waiting}
        self._held = sum(map(_size, state.waiting))
        self._newest = state.newest
        self.settled = state
        self.dropped = 0

    def add(self, counted: Measured, scored: Scored) -> None:
        """Count the pages of the next batch, which come in the one order; those of one batch in any.

        scored: of that batch; to score it costs more than all that is done here.
        """
        self._parts.append((*scored, counted.sizes, counted.activity, counted.closes_at))
        self._impressions += len(counted.labels)
        if self._impressions >= _TOGETHER:
            self._count()

    def settle(self) -> StretchesState:
        """Everything that has been counted, to be saved."""
        self._count()
        self.settled = StretchesState(tuple(self._waiting.values()), self._newest)
        return self.settled

    def published(self, stretches: Iterable[Stretch]) -> None:
        """Forget stretches that are known to be published; not those that have got more pages since."""
        for stretch in stretches:
            if self._waiting.get(stretch.sequence) == stretch:
                self._let_go(stretch.sequence)
        self.settled = StretchesState(
            tuple(each for each in self.settled.waiting if each.sequence in self._waiting), self.settled.newest
        )

    def _count(self) -> None:
        if not self._parts:
            return
        parts, self._parts, self._impressions = self._parts, [], 0
        for more in _stretches_of(*map(np.concatenate, zip(*parts, strict=True))):
            before = self._newest
            goes_on = before is not None and before.sequence == more.sequence
            self._newest = Stretch(more.sequence, _sum(before.segments, more.segments)) if before and goes_on else more
            self._let_go(more.sequence)
            self._waiting[more.sequence] = self._newest
            self._held += _size(self._newest)
        while self._held > MOST_WAITING:
            self._let_go(next(iter(self._waiting)))
            self.dropped += 1

    def _let_go(self, sequence: int) -> None:
        gone = self._waiting.pop(sequence, None)
        if gone is not None:
            self._held -= _size(gone)


def stretches_of(counted: Measured) -> list[Stretch]:
    """The stretches of some pages, in order, each with what these pages add to it."""
    scored = score(counted.logits, counted.labels, counted.page_starts)
    return _stretches_of(*scored, counted.sizes, counted.activity, counted.closes_at)


def _stretches_of(
    column: Ints,
    loss: Ints,
    predicted: Ints,
    gauc: Ints,
    gauc_weight: Ints,
    sizes: Ints,
    activity: Ints,
    closes_at: Ints,
) -> list[Stretch]:
    """As `stretches_of`, from what it needs of `Scored` and `Measured`.

    The same as if every page were added to a `QualitySketch` of its stretch and segment, in time that depends on the
    impressions alone: most stretches of a long log have few pages, and a sketch has 2,048 bins.
    """
    numbers, place = np.unique(closes_at // STRETCH_MS, return_inverse=True)
    group = place * len(SEGMENTS) + np.searchsorted(_ACTIVITY_BOUNDS, activity, side="right")
    groups = len(numbers) * len(SEGMENTS)
    group_of = group.repeat(sizes)
    cells, counts = np.unique(group_of * PAGES + column, return_counts=True)
    ends = np.searchsorted(cells, np.arange(1, groups + 1) * PAGES).tolist()
    bins = (cells % PAGES).astype("<u2").tobytes()
    narrow = counts.astype("u1").tobytes() if int(counts.max()) < 1 << 8 else None
    sums = np.zeros((groups, 5), np.int64)
    np.add.at(sums[:, 0], group, 1)
    np.add.at(sums[:, 1], group, gauc)
    np.add.at(sums[:, 2], group, gauc_weight)
    np.add.at(sums[:, 3], group_of, loss)
    np.add.at(sums[:, 4], group_of, predicted)
    states = []
    start = 0
    for end, five in zip(ends, sums.tolist(), strict=True):
        if start == end:
            states.append(_NOTHING)
            continue
        few = narrow[start:end] if narrow is not None else _narrow(counts[start:end])
        states.append(SketchState(SKETCH_VERSION, bins[2 * start : 2 * end], few, *five))
        start = end
    return [
        Stretch(number, (states[first], states[first + 1], states[first + 2]))
        for number, first in zip(numbers.tolist(), range(0, groups, len(SEGMENTS)), strict=True)
    ]


def _size(stretch: Stretch) -> int:
    return _BESIDE + sum(len(state.bins) + len(state.counts) for state in stretch.segments)


_NOTHING: Final = QualitySketch().encode()


def _narrow(counts: Ints) -> bytes:
    """Counts in as few bytes as all of them fit in, as `QualitySketch.encode` has them."""
    largest = int(counts.max())
    size = next(size for size in (1, 2, 4, 8) if largest < 1 << (8 * size))
    return counts.astype(f"<u{size}").tobytes()


def _sum(one: Segments, other: Segments) -> Segments:
    new, low, active = (
        QualitySketch.total(map(QualitySketch.decode, pair)).encode() for pair in zip(one, other, strict=True)
    )
    return new, low, active
