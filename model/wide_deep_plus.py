"""`wide-deep+`: wide & deep that also reads the smoothed click rates by level of the query and of the user."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.deep import PLACE_NUMBERS, place_numbers
from model.features import Batch
from model.wide_deep import WideDeep

Floats = NDArray[np.float64]

_LEVELS: Final = 4
RATE_NUMBERS: Final = 6 * _LEVELS + 4


def rate_numbers(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 28]: what the streaming aggregates say.

    Log-odds of the parent's rate by level; by how much those of the query's and the user's rates differ from it,
    and the logarithm of the impressions behind them; the differences at the impression's own level, once
    more by themselves; the user's past clicks (log) and the logarithm of all the user's impressions.
    (Reconstruction.)
    """
    rates = batch.rates
    parent = _log_odds(rates.parent)
    query = _log_odds(rates.query) - parent
    user = _log_odds(rates.user) - parent
    own = np.arange(batch.impressions), batch.levels.astype(np.int64) - 1
    return np.concatenate(
        [
            parent + _USUAL,
            query,
            user,
            np.log1p(rates.query_impressions) * _LOG_SCALE,
            np.log1p(rates.user_impressions) * _LOG_SCALE,
            np.eye(_LEVELS)[own[1]] * query[own][:, None],
            query[own][:, None],
            user[own][:, None],
            np.log1p(batch.activity)[batch.page_of][:, None] * _LOG_SCALE,
            np.log1p(rates.user_impressions.sum(axis=1))[:, None] * _LOG_SCALE,
        ],
        axis=1,
    ).astype(np.float32)


_USUAL: Final = 2.0
"""Click rates are around 0.1, log-odds around −2: this centres them."""
_LOG_SCALE: Final = 0.3
"""Brings logarithms of counts to the size of the other numbers."""


def _log_odds(rates: Floats) -> Floats:
    return np.log(rates) - np.log1p(-rates)


class WideDeepPlus(WideDeep):
    """`wide-deep` with the numbers of `rate_numbers` beside those of the place."""

    columns = PLACE_NUMBERS + RATE_NUMBERS

    def numbers(self, batch: Batch) -> NDArray[np.float32]:
        """Place and rates, float32[N, 53]."""
        return np.concatenate([place_numbers(batch), rate_numbers(batch)], axis=1)
