"""A prior for relevance levels that were hardly shown: they borrow from the levels that were (reconstruction).

Between two shown levels the log-odds of a click are interpolated; beyond them they change by `LEVEL_STEP` a level.
Without it, such a level would have the rate that everything starts with, which may be above all that was learned.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEVEL_STEP: Final = math.log(2)
"""Difference in log-odds between two neighbouring levels: the odds of a click double with each."""


@dataclass(frozen=True, slots=True)
class BorrowedLevels:
    """What each level borrows, of L levels: (1 − upper_share)·lower + upper_share·upper + shift, in log-odds.

    A shown level borrows from itself alone. Beyond the shown levels, lower and upper are the same.
    """

    lower: Ints
    """int64[L]: the nearest shown level at or below, from 0,"""
    upper: Ints
    """and at or above;"""
    upper_share: Floats
    """float64[L], in [0, 1): weight of the upper;"""
    shift: Floats
    """float64[L]: `LEVEL_STEP` times the distance beyond the shown levels."""

    @property
    def weights(self) -> Floats:
        """float64[L, L]: column l holds the weights of the levels that l borrows from; each column sums to 1."""
        levels = np.arange(len(self.lower))
        weights = np.zeros((len(levels), len(levels)))
        np.add.at(weights, (self.lower, levels), 1.0 - self.upper_share)
        np.add.at(weights, (self.upper, levels), self.upper_share)
        return weights


def borrow_levels(is_shown: Bools) -> BorrowedLevels:
    """What each level borrows; is_shown: bool[L], of which at least one is true. ValueError: none is."""
    shown = np.flatnonzero(is_shown)
    if not len(shown):
        raise ValueError("no level was shown, so none can be borrowed from")
    levels = np.arange(len(is_shown))
    lower = shown[np.clip(np.searchsorted(shown, levels, side="right") - 1, 0, None)]
    upper = shown[np.clip(np.searchsorted(shown, levels), None, len(shown) - 1)]
    gap = np.maximum(upper - lower, 1)
    inside = (lower <= levels) & (levels <= upper)
    return BorrowedLevels(
        lower=lower,
        upper=upper,
        upper_share=np.where(inside, (levels - lower) / gap, 0.0),
        shift=np.where(inside, 0.0, (levels - lower) * LEVEL_STEP),
    )
