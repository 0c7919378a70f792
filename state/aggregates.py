"""Impressions and clicks by relevance level: totals, and sums that decay with event time."""

from typing import Final

LevelCounts = tuple[int, int, int, int, int, int, int, int]
"""Impressions at levels 1 to 4, then clicks at levels 1 to 4."""

LevelSums = tuple[float, float, float, float, float, float, float, float]
"""The same as decayed sums (float64)."""

NO_COUNTS: Final[LevelCounts] = (0, 0, 0, 0, 0, 0, 0, 0)
NO_SUMS: Final[LevelSums] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def count_levels(levels: bytes, labels: bytes) -> LevelCounts:
    """Impressions and clicks by level of one page; one byte an item, levels 1 to 4, labels 0 or 1."""
    count = levels.count
    if 1 not in labels:
        return (count(1), count(2), count(3), count(4), 0, 0, 0, 0)
    clicks = [0, 0, 0, 0]
    for level, label in zip(levels, labels, strict=True):
        if label:
            clicks[level - 1] += 1
    return (count(1), count(2), count(3), count(4), clicks[0], clicks[1], clicks[2], clicks[3])


def add_counts(a: LevelCounts, b: LevelCounts) -> LevelCounts:
    """The sum, level by level."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a
    b0, b1, b2, b3, b4, b5, b6, b7 = b
    return (a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7)


def decay(sums: LevelSums, since: int, at: int, half_life: float) -> LevelSums:
    """`sums` as of `since` (ms), decayed to `at` (ms); a time before `since` leaves them as they are.

    half_life: ms.
    """
    if at <= since:
        return sums
    factor = 2.0 ** ((since - at) / half_life)
    s0, s1, s2, s3, s4, s5, s6, s7 = sums
    return (
        s0 * factor,
        s1 * factor,
        s2 * factor,
        s3 * factor,
        s4 * factor,
        s5 * factor,
        s6 * factor,
        s7 * factor,
    )


def add_sums(a: LevelSums, b: LevelCounts) -> LevelSums:
    """`a` with the counts of one page added."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a
    b0, b1, b2, b3, b4, b5, b6, b7 = b
    return (a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7)
