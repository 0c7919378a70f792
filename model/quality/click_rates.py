"""Smoothed click rates of hashed keys, each as it was before the page that it is read for."""

from typing import Final

import numpy as np

from prectr.model.features.smoothing import PRIOR_RATE, PRIOR_STRENGTH
from prectr.model.quality.sketch import Bytes, Floats, Ints

_STRENGTH: Final = PRIOR_STRENGTH


class ClickRates:
    """Impressions and clicks by row. impressions, clicks: int64[rows]."""

    def __init__(self, rows: int) -> None:
        self.impressions: Ints = np.zeros(rows, np.int64)
        self.clicks: Ints = np.zeros(rows, np.int64)

    def advance(self, rows: Ints, labels: Bytes, page_starts: Ints) -> Floats:
        """Rates float64[n] of the rows before each impression's page; then count the impressions.

        The rate is (c + k·g)/(n + k), with n impressions and c clicks of the row, and g the rate of everything so far.

        Args:
            rows: int64[n].
            labels: uint8[n].
            page_starts: int64[pages + 1], from 0 to n.
        """
        page_of = np.arange(len(page_starts) - 1).repeat(np.diff(page_starts))
        total, total_clicks = int(self.impressions.sum()), int(self.clicks.sum())
        clicks_before = np.concatenate(([0], labels.cumsum(dtype=np.int64)))
        everything = (total_clicks + clicks_before[page_starts[page_of]] + _STRENGTH * PRIOR_RATE) / (
            total + page_starts[page_of] + _STRENGTH
        )
        order = np.lexsort((page_of, rows))
        ordered, pages = rows[order], page_of[order]
        # Of each impression: where its row begins in this order, and where its page begins within the row.
        index = np.arange(len(rows))
        is_row = np.concatenate(([True], ordered[1:] != ordered[:-1]))
        is_page = is_row | np.concatenate(([True], pages[1:] != pages[:-1]))
        row_start = np.maximum.accumulate(np.where(is_row, index, 0))
        page_start = np.maximum.accumulate(np.where(is_page, index, 0))
        clicked = np.concatenate(([0], labels[order].cumsum(dtype=np.int64)))
        shown = np.empty(len(rows))
        chosen = np.empty(len(rows))
        shown[order] = self.impressions[ordered] + page_start - row_start
        chosen[order] = self.clicks[ordered] + clicked[page_start] - clicked[row_start]
        np.add.at(self.impressions, rows, 1)
        np.add.at(self.clicks, rows, labels)
        rates: Floats = (chosen + _STRENGTH * everything) / (shown + _STRENGTH)
        return rates
