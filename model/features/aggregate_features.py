"""What the streaming aggregates say of a query's and a user's relevance preference, as numbers for a network."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.batch import Batch
from prectr.model.features.smoothing import LEVELS, PRIOR_LOG_ODDS

Floats = NDArray[np.float64]

LEVEL_STEPS: Final = np.array([-1.5, -0.5, 0.5, 1.5])
"""Levels 1 to 4 around their middle: what a slope over the level is multiplied by."""
RATE_NUMBERS: Final = 6 * LEVELS + 4 + 8
"""Columns of `rate_numbers`."""

_LOG_SCALE: Final = 0.3
"""Brings logarithms of counts to the size of the other numbers."""
_SPREAD: Final = 0.7
"""How far queries and users are taken to lie apart in log-odds, before any of their clicks is seen."""


def rate_numbers(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 36], what the streaming aggregates say (reconstruction).

    By level: log-odds of the parent's rate; by how much those of the query's and of the user's differ from it,
    with the logarithm of the impressions behind them, and the query's once more at the impression's own level
    alone. Then those differences at the own level, the user's past clicks and impressions (logarithms), and
    `tilts` of the query and of the user: offset, slope, their sum at the own level, and the slope's part of it.
    """
    rates = batch.rates
    parent = _log_odds(rates.parent)
    query = _log_odds(rates.query) - parent
    user = _log_odds(rates.user) - parent
    own = batch.level_weights
    seen = [
        (own * query).sum(axis=1),
        (own * user).sum(axis=1),
        np.log1p(batch.activity)[batch.page_of] * _LOG_SCALE,
        np.log1p(rates.user_impressions.sum(axis=1)) * _LOG_SCALE,
    ]
    for impressions, clicks in (
        (rates.query_impressions, rates.query_clicks),
        (rates.user_impressions, rates.user_clicks),
    ):
        offset, slope = tilts(impressions, clicks, rates.parent)
        by_level = slope * (own @ LEVEL_STEPS)
        seen += [offset, slope, offset + by_level, by_level]
    return np.concatenate(
        [
            parent - PRIOR_LOG_ODDS,
            query,
            user,
            np.log1p(rates.query_impressions) * _LOG_SCALE,
            np.log1p(rates.user_impressions) * _LOG_SCALE,
            own * query,
            np.stack(seen, axis=1),
        ],
        axis=1,
    ).astype(np.float32)


def of_query(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 10]: what the aggregates say of the query by itself (`_of`)."""
    rates = batch.rates
    return _of(rates.query, rates.query_impressions, rates.query_clicks, rates.parent)


def of_user(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 10]: what the aggregates say of the user by itself (`_of`)."""
    rates = batch.rates
    return _of(rates.user, rates.user_impressions, rates.user_clicks, rates.parent)


def of_parent(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 4]: log-odds of the category's click rate by level, from those of anything."""
    return (_log_odds(batch.rates.parent) - PRIOR_LOG_ODDS).astype(np.float32)


def of_exposure(batch: Batch, strength: float) -> Floats:
    """float64[N, 4]: shares of the levels among what was shown for the query, towards those of everything shown.

    strength: impressions that the latter counts for. Like every aggregate it counts logged levels.
    """
    rates = batch.rates
    shown = rates.query_impressions
    shares: Floats = (shown + strength * rates.exposed) / (shown.sum(axis=1, keepdims=True) + strength)
    return shares


OF_NUMBERS: Final = 2 * LEVELS + 2
"""Columns of `of_query` and `of_user`; the first four are differences by level, the last two offset and slope."""


def _of(smoothed: Floats, impressions: Floats, clicks: Floats, parent: Floats) -> NDArray[np.float32]:
    """Differences of log-odds from the parent's, logarithms of the impressions behind them, offset and slope."""
    offset, slope = tilts(impressions, clicks, parent)
    difference = _log_odds(smoothed) - _log_odds(parent)
    seen = np.log1p(impressions) * _LOG_SCALE
    return np.concatenate([difference, seen, offset[:, None], slope[:, None]], axis=1).astype(np.float32)


def tilts(impressions: Floats, clicks: Floats, expected: Floats) -> tuple[Floats, Floats]:
    """Offset and slope over the level by which a query's or a user's log-odds of a click differ from the expected.

    impressions, clicks: float64[N, 4], counts by level. expected: float64[N, 4], click rates by level.
    Returns two float64[N]: the first Newton step, from zero, towards the mode of the posterior under the
    logistic model logit = logit(expected) + offset + slope·(level − 2.5), with independent normal priors of
    standard deviation 0.7 (reconstruction). Zero where there are no impressions.
    """
    excess = clicks - impressions * expected
    information = impressions * expected * (1.0 - expected)
    prior = 1.0 / _SPREAD**2
    of_offset, of_slope = excess.sum(axis=1), excess @ LEVEL_STEPS
    a = information.sum(axis=1) + prior
    b = information @ LEVEL_STEPS
    d = information @ LEVEL_STEPS**2 + prior
    determinant = a * d - b * b
    return (d * of_offset - b * of_slope) / determinant, (a * of_slope - b * of_offset) / determinant


def _log_odds(rates: Floats) -> Floats:
    return np.log(rates) - np.log1p(-rates)
