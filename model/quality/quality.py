"""A model's prequential quality: overall, by segment, by level, by position and over event time.

Each page is counted once, in the bucket of its close time and its user's activity, and each impression again by
level and by position. All counts are whole numbers in sketches that add up, so the quality of any span or segment
is a sum of these, equal to the last bit however the pages were batched.
"""

from typing import Final, NamedTuple, Self

import msgspec
import numpy as np

from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import (
    GAUC_SUM,
    GAUC_WEIGHT,
    LOSS_SUM,
    PAGE_COUNT,
    PREDICTED_SUM,
    SKETCH_WIDTH,
    Bytes,
    CalibrationPoint,
    Floats,
    ImpressionStats,
    Ints,
    QualitySketch,
    QualityStats,
    SketchState,
    SketchUpdate,
    sketch_update,
)
from prectr.state.aggregates import LevelCounts
from prectr.state.errors import CheckpointError, Remedy

QUALITY_VERSION: Final = 1
SEGMENTS: Final = ("new", "low", "active")
LOW_ACTIVITY: Final = 3
"""A user with at least this many joined clicks is `low`,"""
ACTIVE: Final = 10
"""and with at least this many `active`; below both, `new`."""
LEVEL_NAMES: Final = ("1", "2", "3", "4")
POSITION_NAMES: Final = (*(str(position) for position in range(1, 11)), "11+")

FIRST_BUCKET_MS: Final = 60_000
"""Initial width of a timeline bucket; it doubles, merging pairs of buckets, whenever there are too many."""
MAX_BUCKETS: Final = 128
MIN_TIMELINE_POINTS: Final = 4
MAX_TIMELINE_POINTS: Final = 30
CLICKS_PER_POINT: Final = 400
"""The summary's timeline has 4 to 30 points, of 400 clicks each if possible: fewer clicks show only noise."""
_SPLITS: Final = len(LEVEL_NAMES) + len(POSITION_NAMES)
_SKETCH_ROWS: Final = _SPLITS + len(SEGMENTS) * MAX_BUCKETS
_ACTIVITY_BOUNDS: Final = np.array([LOW_ACTIVITY, ACTIVE])


class TimelinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the pages whose close time lies in [start, end), ms since the epoch."""

    start: int
    end: int
    all: QualityStats
    new: QualityStats
    low: QualityStats
    active: QualityStats


class StatsBySegment(msgspec.Struct, frozen=True, kw_only=True):
    """Quality by the activity of the page's user at the page's time."""

    new: QualityStats
    low: QualityStats
    active: QualityStats


class SecondHalfStats(QualityStats, frozen=True, kw_only=True):
    """Quality of the second half: the pages whose close time is at or after `start` (ms since the epoch)."""

    start: int | None


class QualitySummary(QualityStats, frozen=True, kw_only=True):
    """All statistics of a model's quality, for report and result table; the inherited fields are over all pages.

    first_close, last_close: smallest and largest close time of the pages, ms since the epoch.
    """

    first_close: int | None
    last_close: int | None
    segments: StatsBySegment
    second_half: SecondHalfStats
    levels: dict[str, ImpressionStats]
    positions: dict[str, ImpressionStats]
    timeline: list[TimelinePoint]
    calibration_curve: list[CalibrationPoint]


class BucketState(msgspec.Struct, frozen=True, array_like=True):
    """A timeline bucket that starts at `number` x width, with sketches of new, low and active."""

    number: int
    segments: tuple[SketchState, SketchState, SketchState]


class QualityState(msgspec.Struct, frozen=True, array_like=True):
    """An encoded `Quality`; equal contents have equal bytes. splits: of levels 1 to 4, then positions 1 to 11+."""

    version: int
    width: int
    first_close: int | None
    last_close: int | None
    splits: tuple[SketchState, ...]
    buckets: tuple[BucketState, ...]


class SecondHalf(NamedTuple):
    """The second half of the pages: its sketch, and its first close time (ms; None without pages)."""

    sketch: QualitySketch
    start: int | None


class Quality:
    """Prequential quality of one model: `add_batch` gets the scores from before the batch was trained on."""

    def __init__(self) -> None:
        self.last_update: SketchUpdate | None = None
        """The sketch update of the last batch, for other counters."""
        self._width = FIRST_BUCKET_MS
        self._values: Ints = np.zeros((_SKETCH_ROWS, SKETCH_WIDTH), np.int64)
        self._flat = self._values.reshape(-1)
        self._bucket_row: dict[int, int] = {}
        self._first_close: int | None = None
        self._last_close: int | None = None

    def add_batch(
        self,
        logits: Floats,
        labels: Bytes,
        page_starts: Ints,
        *,
        user_activity: Ints,
        levels: Bytes,
        positions: Ints,
        closes_at: Ints,
    ) -> None:
        """Count a batch of scored pages.

        Args:
            logits: float64[n].
            labels: uint8[n], 0 or 1.
            page_starts: int64[pages + 1], from 0 to n; no page is empty.
            user_activity: int64[pages], the user's joined clicks before the page.
            levels: uint8[n], 1 to 4.
            positions: int64[n], from 1.
            closes_at: int64[pages], close time, ms.

        Raises:
            TrainingError: a logit is not finite.
        """
        if not len(closes_at):
            return
        self.last_update = update = sketch_update(logits, labels, page_starts)
        first, last = int(closes_at.min()), int(closes_at.max())
        self._first_close = first if self._first_close is None else min(first, self._first_close)
        self._last_close = last if self._last_close is None else max(last, self._last_close)
        page_row = self._rows_for(closes_at) + np.searchsorted(_ACTIVITY_BOUNDS, user_activity, side="right")
        rows = np.empty((3, len(logits)), np.int64)
        np.subtract(levels, 1, out=rows[0], casting="unsafe")
        np.minimum(positions, len(POSITION_NAMES), out=rows[1])
        rows[1] += len(LEVEL_NAMES) - 1
        rows[2] = page_row.repeat(page_starts[1:] - page_starts[:-1])
        rows *= SKETCH_WIDTH
        np.add.at(self._flat, (rows + update.column).ravel(), 1)
        rows += LOSS_SUM
        np.add.at(self._flat, rows.ravel(), np.concatenate((update.loss,) * 3))
        rows += PREDICTED_SUM - LOSS_SUM
        np.add.at(self._flat, rows.ravel(), np.concatenate((update.predicted,) * 3))
        page_row *= SKETCH_WIDTH
        np.add.at(self._flat, page_row + PAGE_COUNT, 1)
        np.add.at(self._flat, page_row + GAUC_SUM, update.gauc)
        np.add.at(self._flat, page_row + GAUC_WEIGHT, update.gauc_weight)

    def add_pages(self, pages: ScoredPages) -> SketchUpdate:
        """Count scored pages, at least one; returns their contribution to sketches."""
        self.add_batch(
            pages.logits,
            pages.labels,
            pages.page_starts,
            user_activity=pages.user_activity,
            levels=pages.levels,
            positions=pages.positions,
            closes_at=pages.closes_at,
        )
        assert self.last_update is not None
        return self.last_update

    def _rows_for(self, closes_at: Ints) -> Ints:
        """int64[pages]: the row of each page's bucket (of its segment `new`); adds buckets as needed."""
        numbers = (closes_at // self._width).tolist()
        rows = self._bucket_row
        for number in numbers:
            if number not in rows:
                if len(rows) == MAX_BUCKETS:
                    self._double_width()
                    return self._rows_for(closes_at)
                rows[number] = _SPLITS + len(SEGMENTS) * len(rows)
        return np.array([rows[number] for number in numbers], np.int64)

    def _double_width(self) -> None:
        """Double the width of buckets, merging those that now coincide."""
        timeline = np.zeros((MAX_BUCKETS, len(SEGMENTS), SKETCH_WIDTH), np.int64)
        order: dict[int, int] = {}
        for number, row in sorted(self._bucket_row.items()):
            index = order.setdefault(number // 2, len(order))
            timeline[index] += self._values[row : row + len(SEGMENTS)]
        self._values[_SPLITS:] = timeline.reshape(-1, SKETCH_WIDTH)
        self._bucket_row = {number: _SPLITS + len(SEGMENTS) * index for number, index in order.items()}
        self._width *= 2

    def _sketch(self, row: int) -> QualitySketch:
        return QualitySketch(self._values[row].copy())

    def segment(self, name: str) -> QualitySketch:
        """The sketch of one activity segment: `new`, `low` or `active`."""
        every = len(SEGMENTS)
        first, end = _SPLITS + SEGMENTS.index(name), _SPLITS + every * len(self._bucket_row)
        return QualitySketch(self._values[first:end:every].sum(axis=0))

    def segments(self) -> dict[str, QualitySketch]:
        """Copies of the sketches of `all`, `new`, `low` and `active`."""
        parts = {name: self.segment(name) for name in SEGMENTS}
        return {"all": QualitySketch.total(parts.values()), **parts}

    def level_counts(self) -> LevelCounts:
        """Impressions at relevance levels 1 to 4, then clicks at the same levels."""
        n1, n2, n3, n4 = (self._sketch(row) for row in range(len(LEVEL_NAMES)))
        impressions = (n1.impressions, n2.impressions, n3.impressions, n4.impressions)
        return *impressions, n1.clicks, n2.clicks, n3.clicks, n4.clicks

    def second_half(self) -> SecondHalf:
        """The sketch of the last half of the pages.

        It starts at the latest timeline bucket such that at least half of all pages close at or after its start:
        exact to one bucket, whose width is at most 1/64 of the log's span if that exceeds 2 hours.
        """
        out = QualitySketch()
        half_pages = int(self._values[_SPLITS:, PAGE_COUNT].sum()) / 2
        start = None
        for number, row in sorted(self._bucket_row.items(), reverse=True):
            if start is not None and out.pages >= half_pages:
                break
            out.values += self._values[row : row + len(SEGMENTS)].sum(axis=0)
            start = number * self._width
        return SecondHalf(out, start)

    def timeline(self, max_points: int | None = None) -> list[TimelinePoint]:
        """Quality by event time, in order: one point per bucket that has pages, at most 128.

        max_points: merge neighbouring buckets into at most this many points with about equal numbers of pages.
        """
        buckets = sorted(self._bucket_row.items())
        if max_points is None:
            return [self._point(number, number, [row]) for number, row in buckets]
        pages = np.array([self._values[row : row + len(SEGMENTS), PAGE_COUNT].sum() for _, row in buckets], np.float64)
        # A bucket belongs to the point that contains its middle page.
        group = ((pages.cumsum() - 0.5 * pages) * max_points / max(pages.sum(), 1.0)).astype(np.int64)
        points = []
        for index in np.unique(group):
            members = [buckets[member] for member in np.flatnonzero(group == index)]
            points.append(self._point(members[0][0], members[-1][0], [row for _, row in members]))
        return points

    def _point(self, first: int, last: int, rows: list[int]) -> TimelinePoint:
        """Merge the buckets of `rows`, numbered `first` to `last`, into one point."""
        parts = {name: QualitySketch.total(self._sketch(row + i) for row in rows) for i, name in enumerate(SEGMENTS)}
        return TimelinePoint(
            start=first * self._width,
            end=(last + 1) * self._width,
            all=QualitySketch.total(parts.values()).stats(),
            **{name: part.stats() for name, part in parts.items()},
        )

    def summary(self) -> QualitySummary:
        """All statistics."""
        segments = self.segments()
        half, start = self.second_half()
        splits = [self._sketch(row).impression_stats() for row in range(_SPLITS)]
        total = segments["all"]
        max_points = min(MAX_TIMELINE_POINTS, max(MIN_TIMELINE_POINTS, total.clicks // CLICKS_PER_POINT))
        return QualitySummary(
            **msgspec.structs.asdict(total.stats()),
            first_close=self._first_close,
            last_close=self._last_close,
            segments=StatsBySegment(**{name: segments[name].stats() for name in SEGMENTS}),
            second_half=SecondHalfStats(start=start, **msgspec.structs.asdict(half.stats())),
            levels=dict(zip(LEVEL_NAMES, splits, strict=False)),
            positions=dict(zip(POSITION_NAMES, splits[len(LEVEL_NAMES) :], strict=True)),
            timeline=self.timeline(max_points),
            calibration_curve=total.calibration_curve(min(12, max(3, total.clicks // 25))),
        )

    def state(self) -> QualityState:
        """Encode all counts, to be saved; `from_state` restores them bit for bit."""
        encoded = [self._sketch(row).encode() for row in range(_SPLITS)]
        buckets = []
        for number, row in sorted(self._bucket_row.items()):
            new, low, active = (self._sketch(row + i).encode() for i in range(len(SEGMENTS)))
            buckets.append(BucketState(number, (new, low, active)))
        return QualityState(
            QUALITY_VERSION, self._width, self._first_close, self._last_close, tuple(encoded), tuple(buckets)
        )

    @classmethod
    def from_state(cls, state: QualityState) -> Self:
        """Restore a saved state; CheckpointError: it has another version or is corrupt."""
        if state.version != QUALITY_VERSION:
            raise CheckpointError(
                f"quality counters of version {state.version}, this program reads version {QUALITY_VERSION}",
                Remedy.RELEASE_THAT_WROTE,
                Remedy.EMPTY_RUN_DIR,
            )
        if len(state.splits) != _SPLITS or len(state.buckets) > MAX_BUCKETS or state.width < FIRST_BUCKET_MS:
            raise CheckpointError(
                f"corrupt quality counters: {len(state.splits)} splits, {len(state.buckets)} buckets "
                f"of {state.width} ms",
                Remedy.OLDER_CHECKPOINT,
                Remedy.EMPTY_RUN_DIR,
            )
        out = cls()
        out._width = state.width
        out._first_close, out._last_close = state.first_close, state.last_close
        for row, sketch in enumerate(state.splits):
            out._values[row] = QualitySketch.decode(sketch).values
        for bucket in state.buckets:
            row = out._bucket_row.setdefault(bucket.number, _SPLITS + len(SEGMENTS) * len(out._bucket_row))
            for i, sketch in enumerate(bucket.segments):
                out._values[row + i] = QualitySketch.decode(sketch).values
        return out
