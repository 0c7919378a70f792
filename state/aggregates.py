"""Impressions and clicks by relevance level: totals, and sums that decay with event time."""

from collections.abc import Sequence
from typing import Final

LEVELS: Final = (1, 2, 3, 4)
"""Relevance levels: 1 irrelevant, 2 weakly relevant, 3 relevant, 4 strongly relevant."""

LEVEL_COUNT: Final = len(LEVELS)

NEVER_UPDATED: Final = -1
"""Time of the last update of an entry that holds nothing."""

LevelCounts = tuple[int, int, int, int, int, int, int, int]
"""Impressions at levels 1 to 4, then clicks at levels 1 to 4."""

LevelSums = tuple[float, float, float, float, float, float, float, float]
"""The same, exponentially decayed (float64)."""

MAX_HALF_LIVES: Final = 8
"""Greatest number of speeds at which sums decay."""

DecayedSums = tuple[LevelSums, ...]
"""The same at several speeds: one for each half-life, from the shortest."""

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


def decay(sums: DecayedSums, since: int, at: int, half_lives: Sequence[float]) -> DecayedSums:
    """Decay sums as of `since` to `at`; a time before `since` leaves them unchanged.

    Args:
        sums: one for each half-life.
        since, at: event times in ms.
        half_lives: in ms.
    """
    if at <= since:
        return sums
    elapsed = since - at
    decayed = []
    for (s0, s1, s2, s3, s4, s5, s6, s7), half_life in zip(sums, half_lives, strict=True):
        f = 2.0 ** (elapsed / half_life)
        decayed.append((s0 * f, s1 * f, s2 * f, s3 * f, s4 * f, s5 * f, s6 * f, s7 * f))
    return tuple(decayed)


def decay_and_add(
    sums: DecayedSums, since: int, at: int, half_lives: Sequence[float], counts: LevelCounts
) -> DecayedSums:
    """`decay`, then add the counts of a page to the sums of every half-life, in one pass."""
    elapsed = min(since - at, 0)
    c0, c1, c2, c3, c4, c5, c6, c7 = counts
    added = []
    for (s0, s1, s2, s3, s4, s5, s6, s7), half_life in zip(sums, half_lives, strict=True):
        f = 2.0 ** (elapsed / half_life)
        added.append(
            (s0 * f + c0, s1 * f + c1, s2 * f + c2, s3 * f + c3, s4 * f + c4, s5 * f + c5, s6 * f + c6, s7 * f + c7)
        )
    return tuple(added)
