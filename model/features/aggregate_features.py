"""What the streaming aggregates say of a query's and a user's relevance preference, as numbers for a network."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.batch import Batch
from prectr.model.features.smoothing import LEVELS, PRIOR_LOG_ODDS

Floats = NDArray[np.float64]

CENTERED_LEVELS: Final = np.array([-1.5, -0.5, 0.5, 1.5])
"""Levels 1 to 4 around their middle: what a slope over the level is multiplied by."""
RATE_FEATURES: Final = 6 * LEVELS + 4 + 8
"""Columns of `rate_numbers`."""

_LOG_SCALE: Final = 0.3
"""Brings logarithms of counts to the size of the other numbers."""
_PRIOR_STD: Final = 0.7
"""How far queries and users are taken to lie apart in log-odds, before any of their clicks is seen."""


def rate_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 36], what the streaming aggregates say (reconstruction).

    By level: log-odds of the parent's rate; by how much those of the query's and of the user's differ from it,
    with the logarithm of the impressions behind them, and the query's once more at the impression's own level
    alone. Then those differences at the own level, the user's past clicks and impressions (logarithms), and
    `tilts` of the query and of the user: offset, slope, their sum at the own level, and the slope's part of it.
    """
    rates = batch.rates
    parent = _log_odds(rates.category)
    query = _log_odds(rates.query) - parent
    user = _log_odds(rates.user) - parent
    level_weights = batch.level_weights
    features = [
        (level_weights * query).sum(axis=1),
        (level_weights * user).sum(axis=1),
        np.log1p(batch.user_activity)[batch.page_of] * _LOG_SCALE,
        np.log1p(rates.user_impressions.sum(axis=1)) * _LOG_SCALE,
    ]
    for impressions, clicks in (
        (rates.query_impressions, rates.query_clicks),
        (rates.user_impressions, rates.user_clicks),
    ):
        intercept, slope = intercept_and_slope(impressions, clicks, rates.category)
        slope_term = slope * (level_weights @ CENTERED_LEVELS)
        features += [intercept, slope, intercept + slope_term, slope_term]
    return np.concatenate(
        [
            parent - PRIOR_LOG_ODDS,
            query,
            user,
            np.log1p(rates.query_impressions) * _LOG_SCALE,
            np.log1p(rates.user_impressions) * _LOG_SCALE,
            level_weights * query,
            np.stack(features, axis=1),
        ],
        axis=1,
    ).astype(np.float32)


def query_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 10]: what the aggregates say of the query by itself (`_of`)."""
    rates = batch.rates
    return _features_of(rates.query, rates.query_impressions, rates.query_clicks, rates.category)


def user_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 10]: what the aggregates say of the user by itself (`_of`)."""
    rates = batch.rates
    return _features_of(rates.user, rates.user_impressions, rates.user_clicks, rates.category)


def category_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 4]: log-odds of the category's click rate by level, from those of anything."""
    return (_log_odds(batch.rates.category) - PRIOR_LOG_ODDS).astype(np.float32)


def query_level_shares(batch: Batch, strength: float) -> Floats:
    """float64[N, 4]: shares of the levels among what was shown for the query, towards those of everything shown.

    strength: impressions that the latter counts for. Like every aggregate it counts logged levels.
    """
    rates = batch.rates
    shown = rates.query_impressions
    shares: Floats = (shown + strength * rates.exposed_level_shares) / (shown.sum(axis=1, keepdims=True) + strength)
    return shares


AGGREGATE_FEATURES: Final = 2 * LEVELS + 2
"""Columns of `of_query` and `of_user`; the first four are differences by level, the last two offset and slope."""


def _features_of(smoothed: Floats, impressions: Floats, clicks: Floats, parent: Floats) -> NDArray[np.float32]:
    """Differences of log-odds from the parent's, logarithms of the impressions behind them, offset and slope."""
    intercept, slope = intercept_and_slope(impressions, clicks, parent)
    difference = _log_odds(smoothed) - _log_odds(parent)
    log_impressions = np.log1p(impressions) * _LOG_SCALE
    return np.concatenate([difference, log_impressions, intercept[:, None], slope[:, None]], axis=1).astype(np.float32)


def intercept_and_slope(impressions: Floats, clicks: Floats, expected: Floats) -> tuple[Floats, Floats]:
    """Offset and slope over the level by which a query's or a user's log-odds of a click differ from the expected.

    impressions, clicks: float64[N, 4], counts by level. expected: float64[N, 4], click rates by level.
    Returns two float64[N]: the first Newton step, from zero, towards the mode of the posterior under the
    logistic model logit = logit(expected) + offset + slope·(level − 2.5), with independent normal priors of
    standard deviation 0.7 (reconstruction). Zero where there are no impressions.
    """
    excess = clicks - impressions * expected
    information = impressions * expected * (1.0 - expected)
    prior_precision = 1.0 / _PRIOR_STD**2
    intercept_gradient, slope_gradient = excess.sum(axis=1), excess @ CENTERED_LEVELS
    a = information.sum(axis=1) + prior_precision
    b = information @ CENTERED_LEVELS
    d = information @ CENTERED_LEVELS**2 + prior_precision
    determinant = a * d - b * b
    return (d * intercept_gradient - b * slope_gradient) / determinant, (
        a * slope_gradient - b * intercept_gradient
    ) / determinant


def _log_odds(rates: Floats) -> Floats:
    return np.log(rates) - np.log1p(-rates)
