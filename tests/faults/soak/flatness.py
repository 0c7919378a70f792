"""Whether memory, descriptors and threads stay as they are, judged by a slope that single samples do not move."""

import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import Final

import msgspec

from tests.faults.soak.samples import Sample

MAX_GROWTH: Final = 0.05
"""Over the second half of the run, of the median there."""
MAX_RESTARTED_GROWTH: Final = 0.10
"""Of processes that were restarted: from those of the first half to those of the second, at equal age."""
MAX_COUNT_GROWTH: Final = 3.0
"""Descriptors or threads by which a count may grow in any case: connections come and go."""
EQUAL_AGE: Final = (15.0, 30.0)
"""Seconds of age at which restarted processes are compared."""
_MAX_POINTS: Final = 200
_QUANTITIES: Final = ("memory", "descriptors", "threads")


class Trend(msgspec.Struct, frozen=True):
    """A quantity of a process over the second half. growth: over that half, in the unit of the median."""

    name: str
    quantity: str
    median: float
    growth: float
    flat: bool
    restarted: bool


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """The trend of every quantity of every process; of processes that never live long enough, none."""
    half = max((sample.at for sample in samples), default=0.0) / 2
    found = []
    for name in dict.fromkeys(sample.name for sample in samples):
        own = [sample for sample in samples if sample.name == name]
        restarted = len({sample.pid for sample in own}) > 1
        for quantity in _QUANTITIES:
            trend = (_restarted_trend if restarted else _lasting_trend)(name, quantity, own, half)
            if trend is not None:
                found.append(trend)
    return found


def theil_sen_slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes of all pairs of points (Theil 1950, Sen 1968); 0 of fewer than two."""
    step = -(-len(points) // _MAX_POINTS) or 1
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points[::step], 2) if x2 != x1]
    return statistics.median(slopes) if slopes else 0.0


def _lasting_trend(name: str, quantity: str, own: Sequence[Sample], half: float) -> Trend | None:
    points = [(sample.at, float(getattr(sample, quantity))) for sample in own if sample.at >= half]
    if len(points) < 2:
        return None
    median = statistics.median(value for _, value in points)
    growth = theil_sen_slope(points) * half
    return Trend(name, quantity, median, growth, _is_flat(quantity, median, growth, MAX_GROWTH), restarted=False)


def _restarted_trend(name: str, quantity: str, own: Sequence[Sample], half: float) -> Trend | None:
    lowest, highest = EQUAL_AGE
    values: tuple[list[float], list[float]] = ([], [])
    for sample in own:
        if lowest <= sample.age <= highest:
            values[sample.at >= half].append(float(getattr(sample, quantity)))
    if not all(values):
        return None
    before, median = (statistics.median(each) for each in values)
    growth = median - before
    flat = _is_flat(quantity, median, growth, MAX_RESTARTED_GROWTH)
    return Trend(name, quantity, median, growth, flat, restarted=True)


def _is_flat(quantity: str, median: float, growth: float, share: float) -> bool:
    allowed = share * median if quantity == "memory" else max(share * median, MAX_COUNT_GROWTH)
    return growth <= allowed
