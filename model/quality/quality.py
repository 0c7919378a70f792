"""A model's quality while it learns: whole, by segment, by level, by position and over event time.

Each page is counted once, in the bucket of its effective close and its user's activity, and each impression
once more by level and once by position. All of it is whole numbers in sketches that add, so figures for any
stretch or segment are sums of these, equal to the last bit however the pages came in batches.
"""

from typing import Final, NamedTuple, Self

import msgspec
import numpy as np

from prectr.model.quality.sketch import (
    GAUC_SUM,
    GAUC_WEIGHT,
    LOSS_SUM,
    PAGES,
    PREDICTED_SUM,
    WIDTH,
    Bytes,
    CurvePoint,
    Figures,
    Floats,
    ImpressionFigures,
    Ints,
    QualitySketch,
    Scored,
    SketchState,
    score,
)
from prectr.state.aggregates import LevelCounts
from prectr.state.errors import CheckpointError

QUALITY_VERSION: Final = 1
SEGMENTS: Final = ("new", "low", "active")
LOW_ACTIVITY: Final = 3
"""From this many joined clicks a user is `low`,"""
ACTIVE: Final = 10
"""and from this many `active`; below both `new`."""
LEVEL_NAMES: Final = ("1", "2", "3", "4")
POSITION_NAMES: Final = (*(str(position) for position in range(1, 11)), "11+")

FIRST_BUCKET_MS: Final = 60_000
"""Width of a timeline bucket at first; it doubles, pairs of buckets becoming one, whenever there are too many."""
MAX_BUCKETS: Final = 128
FEWEST_STRETCHES: Final = 4
MOST_STRETCHES: Final = 30
CLICKS_A_STRETCH: Final = 400
"""The summary's timeline has 4 to 30 points, as many as have 400 clicks each: fewer clicks show only noise."""
_SPLITS: Final = len(LEVEL_NAMES) + len(POSITION_NAMES)
_ROWS: Final = _SPLITS + len(SEGMENTS) * MAX_BUCKETS
_ACTIVITY_BOUNDS: Final = np.array([LOW_ACTIVITY, ACTIVE])


class TimelinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the pages whose effective close lies in [start, end), ms since the epoch."""

    start: int
    end: int
    all: Figures
    new: Figures
    low: Figures
    active: Figures


class SegmentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Quality by the activity of the page's user at the page's time."""

    new: Figures
    low: Figures
    active: Figures


class HalfFigures(Figures, frozen=True, kw_only=True):
    """Quality of the second half: the pages whose effective close is at or after `start` (ms since the epoch)."""

    start: int | None


class QualitySummary(Figures, frozen=True, kw_only=True):
    """Every figure of a model's quality, as the report and the result table show them; its own are of all pages.

    first_close, last_close: smallest and largest effective close of the pages, ms since the epoch.
    """

    first_close: int | None
    last_close: int | None
    segments: SegmentFigures
    second_half: HalfFigures
    levels: dict[str, ImpressionFigures]
    positions: dict[str, ImpressionFigures]
    timeline: list[TimelinePoint]
    calibration_curve: list[CurvePoint]


class BucketState(msgspec.Struct, frozen=True, array_like=True):
    """A timeline bucket: it starts at `number` x width; sketches of new, low and active."""

    number: int
    segments: tuple[SketchState, SketchState, SketchState]


class QualityState(msgspec.Struct, frozen=True, array_like=True):
    """All of a `Quality`, encoded; equal contents have equal bytes. `splits`: levels 1 to 4, positions 1 to 11+."""

    version: int
    width: int
    first_close: int | None
    last_close: int | None
    splits: tuple[SketchState, ...]
    buckets: tuple[BucketState, ...]


class Half(NamedTuple):
    """The second half of the pages: its sketch, and where it starts (ms of effective close; None without pages)."""

    sketch: QualitySketch
    start: int | None


class Quality:
    """Prequential quality of one model; `add_batch` takes the scores made before the batch was learned from."""

    def __init__(self) -> None:
        self.scored: Scored | None = None
        """What the last batch added to every sketch that it belongs to, for whoever else counts it."""
        self._width = FIRST_BUCKET_MS
        self._values: Ints = np.zeros((_ROWS, WIDTH), np.int64)
        self._flat = self._values.reshape(-1)
        self._rows: dict[int, int] = {}
        self._first_close: int | None = None
        self._last_close: int | None = None

    def add_batch(
        self,
        logits: Floats,
        labels: Bytes,
        page_starts: Ints,
        *,
        activity: Ints,
        levels: Bytes,
        positions: Ints,
        closes_at: Ints,
    ) -> None:
        """Count a batch of scored pages.

        logits: float64[n]; labels: uint8[n], 0 or 1; page_starts: int64[pages + 1], from 0 to n, pages not empty;
        activity: int64[pages], the user's joined clicks before the page; levels: uint8[n], 1 to 4;
        positions: int64[n], from 1; closes_at: int64[pages], effective close, ms.
        Raises TrainingError if a logit is not finite.
        """
        if not len(closes_at):
            return
        self.scored = scored = score(logits, labels, page_starts)
        first, last = int(closes_at.min()), int(closes_at.max())
        self._first_close = first if self._first_close is None else min(first, self._first_close)
        self._last_close = last if self._last_close is None else max(last, self._last_close)
        page_row = self._bucket_rows(closes_at) + np.searchsorted(_ACTIVITY_BOUNDS, activity, side="right")
        rows = np.empty((3, len(logits)), np.int64)
        np.subtract(levels, 1, out=rows[0], casting="unsafe")
        np.minimum(positions, len(POSITION_NAMES), out=rows[1])
        rows[1] += len(LEVEL_NAMES) - 1
        rows[2] = page_row.repeat(page_starts[1:] - page_starts[:-1])
        rows *= WIDTH
        np.add.at(self._flat, (rows + scored.column).ravel(), 1)
        rows += LOSS_SUM
        np.add.at(self._flat, rows.ravel(), np.concatenate((scored.loss,) * 3))
        rows += PREDICTED_SUM - LOSS_SUM
        np.add.at(self._flat, rows.ravel(), np.concatenate((scored.predicted,) * 3))
        page_row *= WIDTH
        np.add.at(self._flat, page_row + PAGES, 1)
        np.add.at(self._flat, page_row + GAUC_SUM, scored.gauc)
        np.add.at(self._flat, page_row + GAUC_WEIGHT, scored.gauc_weight)

    def _bucket_rows(self, closes_at: Ints) -> Ints:
        """The row of each page's bucket (of its segment `new`), int64[pages]; opens buckets as needed."""
        numbers = (closes_at // self._width).tolist()
        rows = self._rows
        for number in numbers:
            if number not in rows:
                if len(rows) == MAX_BUCKETS:
                    self._double_width()
                    return self._bucket_rows(closes_at)
                rows[number] = _SPLITS + len(SEGMENTS) * len(rows)
        return np.array([rows[number] for number in numbers], np.int64)

    def _double_width(self) -> None:
        """Make buckets twice as wide: those that now fall together add up."""
        timeline = np.zeros((MAX_BUCKETS, len(SEGMENTS), WIDTH), np.int64)
        order: dict[int, int] = {}
        for number, row in sorted(self._rows.items()):
            place = order.setdefault(number // 2, len(order))
            timeline[place] += self._values[row : row + len(SEGMENTS)]
        self._values[_SPLITS:] = timeline.reshape(-1, WIDTH)
        self._rows = {number: _SPLITS + len(SEGMENTS) * place for number, place in order.items()}
        self._width *= 2

    def _sketch(self, row: int) -> QualitySketch:
        return QualitySketch(self._values[row].copy())

    def segment(self, name: str) -> QualitySketch:
        """The sketch of one activity segment: `new`, `low` or `active`."""
        every = len(SEGMENTS)
        first, end = _SPLITS + SEGMENTS.index(name), _SPLITS + every * len(self._rows)
        return QualitySketch(self._values[first:end:every].sum(axis=0))

    def segments(self) -> dict[str, QualitySketch]:
        """Sketches of `all`, `new`, `low` and `active`; later batches do not touch them."""
        parts = {name: self.segment(name) for name in SEGMENTS}
        return {"all": QualitySketch.total(parts.values()), **parts}

    def level_counts(self) -> LevelCounts:
        """Impressions at relevance levels 1 to 4, then clicks at these."""
        n1, n2, n3, n4 = (self._sketch(row) for row in range(len(LEVEL_NAMES)))
        impressions = (n1.impressions, n2.impressions, n3.impressions, n4.impressions)
        return *impressions, n1.clicks, n2.clicks, n3.clicks, n4.clicks

    def second_half(self) -> Half:
        """The sketch of the last half of the pages.

        Boundary: the latest start of a timeline bucket such that at least half of all pages close at or after
        it. It is exact to one bucket, whose width is at most 1/64 of the log's span once that exceeds 2 hours.
        """
        out = QualitySketch()
        wanted = int(self._values[_SPLITS:, PAGES].sum()) / 2
        start = None
        for number, row in sorted(self._rows.items(), reverse=True):
            if start is not None and out.pages >= wanted:
                break
            out.values += self._values[row : row + len(SEGMENTS)].sum(axis=0)
            start = number * self._width
        return Half(out, start)

    def timeline(self, stretches: int | None = None) -> list[TimelinePoint]:
        """Quality by event time, in order: bucket by bucket, at most 128, those without pages left out.

        With `stretches` neighbouring buckets are put together, to at most that many of about equal pages.
        """
        buckets = sorted(self._rows.items())
        if stretches is None:
            return [self._point(number, number, [row]) for number, row in buckets]
        pages = np.array([self._values[row : row + len(SEGMENTS), PAGES].sum() for _, row in buckets], np.float64)
        # A bucket belongs to the stretch in which its middle page falls.
        stretch = ((pages.cumsum() - 0.5 * pages) * stretches / max(pages.sum(), 1.0)).astype(np.int64)
        points = []
        for index in np.unique(stretch):
            members = [buckets[place] for place in np.flatnonzero(stretch == index)]
            points.append(self._point(members[0][0], members[-1][0], [row for _, row in members]))
        return points

    def _point(self, first: int, last: int, rows: list[int]) -> TimelinePoint:
        """The buckets of `rows`, numbered `first` to `last`, as one point."""
        parts = {name: QualitySketch.total(self._sketch(row + i) for row in rows) for i, name in enumerate(SEGMENTS)}
        return TimelinePoint(
            start=first * self._width,
            end=(last + 1) * self._width,
            all=QualitySketch.total(parts.values()).figures(),
            **{name: part.figures() for name, part in parts.items()},
        )

    def summary(self) -> QualitySummary:
        """Every figure at once."""
        segments = self.segments()
        half, start = self.second_half()
        splits = [self._sketch(row).impression_figures() for row in range(_SPLITS)]
        whole = segments["all"]
        stretches = min(MOST_STRETCHES, max(FEWEST_STRETCHES, whole.clicks // CLICKS_A_STRETCH))
        return QualitySummary(
            **msgspec.structs.asdict(whole.figures()),
            first_close=self._first_close,
            last_close=self._last_close,
            segments=SegmentFigures(**{name: segments[name].figures() for name in SEGMENTS}),
            second_half=HalfFigures(start=start, **msgspec.structs.asdict(half.figures())),
            levels=dict(zip(LEVEL_NAMES, splits, strict=False)),
            positions=dict(zip(POSITION_NAMES, splits[len(LEVEL_NAMES) :], strict=True)),
            timeline=self.timeline(stretches),
            calibration_curve=whole.calibration_curve(min(12, max(3, whole.clicks // 25))),
        )

    def state(self) -> QualityState:
        """Everything that was counted, to be saved; `from_state` gives it back bit for bit."""
        encoded = [self._sketch(row).encode() for row in range(_SPLITS)]
        buckets = []
        for number, row in sorted(self._rows.items()):
            new, low, active = (self._sketch(row + i).encode() for i in range(len(SEGMENTS)))
            buckets.append(BucketState(number, (new, low, active)))
        return QualityState(
            QUALITY_VERSION, self._width, self._first_close, self._last_close, tuple(encoded), tuple(buckets)
        )

    @classmethod
    def from_state(cls, state: QualityState) -> Self:
        """Take up a saved state; raises CheckpointError if it is of another version or damaged."""
        if state.version != QUALITY_VERSION:
            raise CheckpointError(
                f"quality counters of version {state.version}, this program reads version {QUALITY_VERSION}: "
                "use the release that wrote them, or start over in an empty --run-dir"
            )
        if len(state.splits) != _SPLITS or len(state.buckets) > MAX_BUCKETS or state.width < FIRST_BUCKET_MS:
            raise CheckpointError(
                f"damaged quality counters: {len(state.splits)} splits, {len(state.buckets)} buckets "
                f"of {state.width} ms; start over in an empty --run-dir"
            )
        out = cls()
        out._width = state.width
        out._first_close, out._last_close = state.first_close, state.last_close
        for row, sketch in enumerate(state.splits):
            out._values[row] = QualitySketch.decode(sketch).values
        for bucket in state.buckets:
            row = out._rows.setdefault(bucket.number, _SPLITS + len(SEGMENTS) * len(out._rows))
            for i, sketch in enumerate(bucket.segments):
                out._values[row + i] = QualitySketch.decode(sketch).values
        return out
