"""Smoothed click rates by level: query and user towards category × level, category towards the level overall.

With c clicks in n impressions and a prior rate g, the smoothed rate is (c + k·g)/(n + k): the posterior mean under a
Beta prior of strength k (reconstruction). The trainer counts the prior rates in the total order, after a batch has
been scored, so that a rate never includes the labels that it helps to predict.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.hashing import U64, row_indices
from prectr.model.features.level_prior import borrow_levels
from prectr.state.aggregates import LEVEL_COUNT

Floats = NDArray[np.float64]

PRIOR_RATE: Final = 0.1
"""The prior click rate of everything,"""
PRIOR_STRENGTH: Final = 20.0
"""with the weight of this many impressions."""
_MIN_IMPRESSIONS: Final = 2_000
"""Impressions of all levels of which one with fewer than `PRIOR_STRENGTH` was hardly shown."""
PRIOR_LOG_ODDS: Final = math.log(PRIOR_RATE / (1 - PRIOR_RATE))
"""`PRIOR_RATE` as log-odds: the initial logit of every model."""


def log_odds(probability: Floats) -> Floats:
    """ln(p / (1 − p)), any shape, for p in (0, 1)."""
    result: Floats = np.log(probability) - np.log1p(-probability)
    return result


@dataclass(frozen=True, slots=True)
class SmoothedRates:
    """Smoothed click rates of a batch of N impressions, by level 1 to 4."""

    category: Floats
    """float64[N, 4]: of the item's category."""
    query: Floats
    """float64[N, 4]: of the query, smoothed towards `category`."""
    user: Floats
    """float64[N, 4]: of the user, smoothed towards `category`."""
    query_impressions: Floats
    """float64[N, 4]: the impressions behind `query`,"""
    query_clicks: Floats
    """and the clicks."""
    user_impressions: Floats
    """float64[N, 4]: the impressions behind `user`,"""
    user_clicks: Floats
    """and the clicks."""
    exposed_level_shares: Floats
    """float64[4]: shares of the levels among all impressions so far."""
    category_impressions: Floats
    """float64[N, 4]: the impressions behind `category`."""


class PriorRates:
    """Impressions and clicks by category × level and by level: the prior rates of query and user.

    Memory is bounded: categories are hashed to `size` rows.
    """

    def __init__(self, size: int, strength: float) -> None:
        self.size = size
        self.strength = strength
        self.impressions: Floats = np.zeros((size, LEVEL_COUNT))
        self.clicks: Floats = np.zeros((size, LEVEL_COUNT))
        # Sums over the rows; counts are whole numbers, so the order of summation does not matter.
        self._impressions_by_level: Floats = np.zeros(LEVEL_COUNT)
        self._clicks_by_level: Floats = np.zeros(LEVEL_COUNT)

    def load_counts(self, impressions: Floats, clicks: Floats) -> None:
        """Restore saved counts, float64[size, 4] each; ValueError: they have another size."""
        if impressions.shape != self.impressions.shape or clicks.shape != self.clicks.shape:
            raise ValueError(f"prior rates have shape {impressions.shape}, not {self.impressions.shape}")
        self.impressions, self.clicks = impressions, clicks
        self._impressions_by_level, self._clicks_by_level = impressions.sum(axis=0), clicks.sum(axis=0)

    def smoothed_rates(
        self, category: U64, page_of: NDArray[np.int64], query_stats: Floats, user_stats: Floats
    ) -> SmoothedRates:
        """Smooth the rates of a batch.

        Args:
            category: uint64[N], hashed.
            page_of: int64[N].
            query_stats: float64[P, 8], impressions at levels 1 to 4, then clicks.
            user_stats: float64[P, 8], likewise.
        """
        total_impressions, total_clicks = self._impressions_by_level, self._clicks_by_level
        overall = (total_clicks.sum() + PRIOR_STRENGTH * PRIOR_RATE) / (total_impressions.sum() + PRIOR_STRENGTH)
        by_level = _rates_by_level(total_impressions, total_clicks, overall)
        row = row_indices(category, "category parent", self.size)
        strength = self.strength
        category_impressions = self.impressions[row]
        parent = (self.clicks[row] + strength * by_level) / (category_impressions + strength)
        query, user = query_stats[page_of], user_stats[page_of]
        return SmoothedRates(
            exposed_level_shares=(total_impressions + PRIOR_STRENGTH / LEVEL_COUNT)
            / (total_impressions.sum() + PRIOR_STRENGTH),
            category=parent,
            query=(query[:, LEVEL_COUNT:] + strength * parent) / (query[:, :LEVEL_COUNT] + strength),
            user=(user[:, LEVEL_COUNT:] + strength * parent) / (user[:, :LEVEL_COUNT] + strength),
            query_impressions=query[:, :LEVEL_COUNT],
            query_clicks=query[:, LEVEL_COUNT:],
            user_impressions=user[:, :LEVEL_COUNT],
            user_clicks=user[:, LEVEL_COUNT:],
            category_impressions=category_impressions,
        )

    def update(self, category: U64, levels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Count a scored batch: category uint64[N], levels uint8[N] from 1, labels uint8[N]."""
        row = row_indices(category, "category parent", self.size)
        level = levels.astype(np.int64) - 1
        clicked = labels.astype(np.float64)
        np.add.at(self.impressions, (row, level), 1.0)
        np.add.at(self.clicks, (row, level), clicked)
        self._impressions_by_level += np.bincount(level, minlength=LEVEL_COUNT)
        self._clicks_by_level += np.bincount(level, weights=clicked, minlength=LEVEL_COUNT)


def _rates_by_level(impressions: Floats, clicks: Floats, overall: float) -> Floats:
    """float64[4]: click rates by level, smoothed towards the overall rate.

    A level that was hardly shown is also smoothed towards what it borrows from the others, the more so the fewer
    impressions it has.
    """
    smoothed: Floats = (clicks + PRIOR_STRENGTH * overall) / (impressions + PRIOR_STRENGTH)
    is_shown = impressions >= PRIOR_STRENGTH
    if is_shown.all() or impressions.sum() < _MIN_IMPRESSIONS:
        return smoothed
    borrowed = borrow_levels(is_shown)
    borrowed_odds = np.exp(log_odds(smoothed) @ borrowed.weights + borrowed.shift)
    own_share = np.minimum(impressions / PRIOR_STRENGTH, 1.0)
    prior = own_share * overall + (1.0 - own_share) * borrowed_odds / (1.0 + borrowed_odds)
    rates: Floats = (clicks + PRIOR_STRENGTH * prior) / (impressions + PRIOR_STRENGTH)
    return rates
