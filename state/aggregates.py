"""Impressions and clicks by relevance level: totals, and sums that decay with event time."""

from typing import Final

LEVELS: Final = (1, 2, 3, 4)
"""Relevance levels: 1 irrelevant, 2 weakly relevant, 3 relevant, 4 strongly relevant."""

NEVER_UPDATED: Final = -1
"""Time of the last update of an entry that holds nothing."""

LevelCounts = tuple[int, int, int, int, int, int, int, int]
"""Impressions at levels 1 to 4, then clicks at levels 1 to 4."""

LevelSums = tuple[float, float, float, float, float, float, float, float]
"""The same, exponentially decayed (float64)."""

NO_COUNTS: Final[LevelCounts] = (0, 0, 0, 0, 0, 0, 0, 0)
NO_SUMS: Final[LevelSums] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def count_levels(levels: bytes, labels: bytes) -> LevelCounts:
    """Count impressions and clicks by level, of one page or of several pages joined.

    Args:
        levels: one byte per item, 1 to 4.
        labels: one byte per item, 1 if it was clicked, else 0.

    Raises:
        ValueError: an item was clicked and the two have different lengths.
    """
    count = levels.count
    if 1 not in labels:
        return (count(1), count(2), count(3), count(4), 0, 0, 0, 0)
    if len(levels) != len(labels):
        raise ValueError(f"{len(levels)} levels, but {len(labels)} labels")
    # A label times 255 is a mask of one byte, so the levels of the clicked items remain and the others become 0.
    mask = int.from_bytes(labels) * 0xFF
    clicked = (int.from_bytes(levels) & mask).to_bytes(len(levels)).count
    return (count(1), count(2), count(3), count(4), clicked(1), clicked(2), clicked(3), clicked(4))


def add_counts(a: LevelCounts, b: LevelCounts) -> LevelCounts:
    """Add two counts, level by level."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a
    b0, b1, b2, b3, b4, b5, b6, b7 = b
    return (a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7)


def decay(sums: LevelSums, since: int, at: int, half_life: float) -> LevelSums:
    """Decay sums as of `since` to `at`; a time before `since` leaves them unchanged.

    Args:
        since, at: event times in ms.
        half_life: in ms.
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
    """Add the counts of one page to decayed sums."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a
    b0, b1, b2, b3, b4, b5, b6, b7 = b
    return (a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7)
