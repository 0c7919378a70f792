"""Numeric features of the streaming aggregates: the relevance preference of query and user."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.batch import Batch
from prectr.model.features.smoothing import PRIOR_LOG_ODDS, Floats, log_odds
from prectr.state.aggregates import LEVEL_COUNT

CENTERED_LEVELS: Final = np.array([-1.5, -0.5, 0.5, 1.5])
"""Levels 1 to 4 relative to their middle: the factor of a slope over the level."""
RATE_FEATURES: Final = 6 * LEVEL_COUNT + 4 + 8
"""Columns of `rate_features`."""

AGGREGATE_FEATURES: Final = 2 * LEVEL_COUNT + 2
"""Columns of `query_features` and `user_features`: by level, differences of log-odds from the category's and logarithms
of the impressions; then intercept and slope."""

_LOG_SCALE: Final = 0.3
"""Scales logarithms of counts to the size of the other features."""
_PRIOR_STD: Final = 0.7
"""Prior standard deviation of queries and users, in log-odds."""


def rate_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 36], from the smoothed rates (reconstruction).

    By level: log-odds of the category's rate; differences from it of the query's and of the user's; logarithms of the
    impressions of query and user; the query's differences masked to the impression's own level. Then, per impression:
    both differences at the own level; logarithms of the user's clicks and impressions; and of query and user,
    `intercept_and_slope`, their sum at the own level, and the slope's part of it.
    """
    rates = batch.rates
    parent = log_odds(rates.category)
    query = log_odds(rates.query) - parent
    user = log_odds(rates.user) - parent
    level_weights = batch.level_weights
    features = [
        _sum_levels(level_weights * query),
        _sum_levels(level_weights * user),
        np.log1p(batch.user_activity)[batch.page_of] * _LOG_SCALE,
        np.log1p(_sum_levels(rates.user_impressions)) * _LOG_SCALE,
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
    """float32[N, 10]: features of the query's rates; see `AGGREGATE_FEATURES`."""
    rates = batch.rates
    return _features_of(rates.query, rates.query_impressions, rates.query_clicks, rates.category)


def user_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 10]: features of the user's rates; see `AGGREGATE_FEATURES`."""
    rates = batch.rates
    return _features_of(rates.user, rates.user_impressions, rates.user_clicks, rates.category)


def recent_shifts(batch: Batch) -> tuple[Floats, Floats]:
    """By how much the query's recent clicks depart from all its clicks, at each of the H half-lives (reconstruction).

    `intercept_and_slope` of the decayed sums, where the expected rates are those of the category, moved by the
    intercept and slope of the query's totals. Zero where there are no impressions.

    Returns:
        Intercept and slope over the level, in log-odds: two float64[N, H].
    """
    rates = batch.rates
    intercept, slope = intercept_and_slope(rates.query_impressions, rates.query_clicks, rates.category)
    log_odds_of_query = log_odds(rates.category) + intercept[:, None] + slope[:, None] * CENTERED_LEVELS
    expected = 1.0 / (1.0 + np.exp(-log_odds_of_query))
    decayed = batch.query_decayed[batch.page_of]
    return intercept_and_slope(decayed[:, :, :LEVEL_COUNT], decayed[:, :, LEVEL_COUNT:], expected[:, None, :])


def category_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 4]: log-odds of the category's click rate by level, relative to the prior."""
    return (log_odds(batch.rates.category) - PRIOR_LOG_ODDS).astype(np.float32)


def query_level_shares(batch: Batch, strength: float) -> Floats:
    """float64[N, 4]: shares of the levels among the query's impressions, smoothed towards those of all impressions.

    strength: weight of the latter, in impressions. Like all aggregates, they count logged levels.
    """
    rates = batch.rates
    shown = rates.query_impressions
    shares: Floats = (shown + strength * rates.exposed_level_shares) / (shown.sum(axis=1, keepdims=True) + strength)
    return shares


def _features_of(smoothed: Floats, impressions: Floats, clicks: Floats, parent: Floats) -> NDArray[np.float32]:
    """float32[N, 10]: differences of log-odds from the parent's, logarithms of impressions, intercept and slope."""
    intercept, slope = intercept_and_slope(impressions, clicks, parent)
    difference = log_odds(smoothed) - log_odds(parent)
    log_impressions = np.log1p(impressions) * _LOG_SCALE
    return np.concatenate([difference, log_impressions, intercept[:, None], slope[:, None]], axis=1).astype(np.float32)


def intercept_and_slope(impressions: Floats, clicks: Floats, expected: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope over the level of a query's or user's log-odds of a click, relative to the expected.

    One Newton step from zero towards the posterior mode of the logistic model
    logit = logit(expected) + intercept + slope·(level − 2.5), with independent normal priors of standard deviation
    0.7 (reconstruction). Zero where there are no impressions.

    Args:
        impressions: float64[…, 4], by level.
        clicks: float64[…, 4], by level.
        expected: float64[…, 4], click rates by level.

    Returns:
        Two float64[…].
    """
    excess = clicks - impressions * expected
    information = impressions * expected * (1.0 - expected)
    prior_precision = 1.0 / _PRIOR_STD**2
    intercept_gradient, slope_gradient = _sum_levels(excess), excess @ CENTERED_LEVELS
    a = _sum_levels(information) + prior_precision
    b = information @ CENTERED_LEVELS
    d = information @ CENTERED_LEVELS**2 + prior_precision
    determinant = a * d - b * b
    return (d * intercept_gradient - b * slope_gradient) / determinant, (
        a * slope_gradient - b * intercept_gradient
    ) / determinant


def _sum_levels(by_level: Floats) -> Floats:
    """float64[…] from float64[…, 4]; several times cheaper than numpy's sum over so short an axis, to the same bit."""
    total: Floats = by_level[..., 0] + by_level[..., 1]
    for level in range(2, LEVEL_COUNT):
        total += by_level[..., level]
    return total
