"""Whether a model still gets better as it sees more pages."""

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from prectr.model.quality.quality import TimelinePoint
from prectr.model.quality.sketch import QualityStats

MIN_POINTS: Final = 4
_QUANTILE: Final = 1.96


class LearningTrend(msgspec.Struct, frozen=True, kw_only=True):
    """How the AUC changes in the later half of the timeline, per doubling of the pages seen.

    slope, low, high: weighted least squares over `points` points, with a 95 % interval. verdict: `rising` or `falling`
    where the interval excludes 0, else `level`. over_position: whether it is the AUC less that of position alone, which
    cancels how hard the pages of a time are.
    """

    slope: float
    low: float
    high: float
    verdict: Literal["rising", "level", "falling"]
    points: int
    over_position: bool


def learning_trend(
    timeline: Sequence[TimelinePoint], position: Sequence[TimelinePoint] | None = None
) -> LearningTrend | None:
    """The trend of a model's timeline; None with too few points.

    Args:
        timeline: of the model.
        position: of the baseline `position alone`; used if it is over the same pages.
    """
    over_position = position is not None and _spans(position) == _spans(timeline)
    base = list(position) if position is not None and over_position else [None] * len(timeline)
    seen = 0
    rows = []
    for point, other in zip(timeline, base, strict=True):
        middle = seen + point.all.pages / 2
        seen += point.all.pages
        level = 0.0 if other is None else other.all.auc
        if point.all.auc is not None and level is not None and middle > 0:
            rows.append((middle, math.log2(middle), point.all.auc - level, auc_error(point.all)))
    late = [row for row in rows if row[0] >= seen / 2 and row[3] > 0]
    if len(late) < MIN_POINTS:
        return None
    _, x, y, error = np.array(late).T
    weight = error**-2.0
    center = float((weight * x).sum() / weight.sum())
    level = float((weight * y).sum() / weight.sum())
    precision = float((weight * (x - center) ** 2).sum())
    slope = float((weight * (x - center) * (y - level)).sum()) / precision
    misfit = float((weight * (y - level - slope * (x - center)) ** 2).sum()) / (len(late) - 2)
    # Points that scatter more than their own errors widen the interval (Birge 1932).
    half = _QUANTILE * math.sqrt(max(misfit, 1.0) / precision)
    low, high = slope - half, slope + half
    return LearningTrend(
        slope=slope,
        low=low,
        high=high,
        verdict="rising" if low > 0 else "falling" if high < 0 else "level",
        points=len(late),
        over_position=over_position,
    )


def auc_error(stats: QualityStats) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982); 0 if it is undefined."""
    auc, clicked = stats.auc, stats.clicks
    unclicked = stats.impressions - clicked
    if auc is None:
        return 0.0
    above, below = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (clicked - 1) * (above - auc * auc) + (unclicked - 1) * (below - auc * auc)
    return math.sqrt(max(spread, 0.0) / (clicked * unclicked))


def _spans(timeline: Sequence[TimelinePoint]) -> list[tuple[int, int, int]]:
    return [(point.start, point.end, point.all.pages) for point in timeline]
