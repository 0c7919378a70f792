"""How often, and how high, an item has been shown for a query: what the ranker that wrote the log thought of it.

A pair's share of its query's pages is among the oldest features of click models; that it moves P(level) is a
reconstruction. It says nothing of what was never shown: there all numbers are zero.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, cross, rows
from prectr.model.layers.gradients import RowGradients

EXPOSURE_NUMBERS: Final = 5
"""Columns of `ExposureCounts.numbers`,"""
OF_LEVELS: Final = 4
"""of which the first tell of levels. The last does not: where everything is shown it is high for everything."""

_COLUMNS: Final = 3
_DEPTH: Final = 2
_PAGES: Final = 5.0
"""Pages of the query that an item's expected share of them counts for."""
_SHARE: Final = 5.0
"""Pages without the item for one with it, as expected of an item before anything was shown: a page shows a sixth."""
_BOUND: Final = 0.02
"""How near to none and to all of the pages a share is told from them."""
_HEIGHT: Final = 1.5
"""ln(position) expected of an item before it was shown: that of the middle of a page of ten."""
_LOG_SCALE: Final = 0.3


class ExposureCounts:
    """What was shown, by (query, item) and by query: a count-min sketch of two rows.

    After Cormode and Muthukrishnan 2005: of the two counts that a key has the lower one counts, so that two keys must
    meet twice to be taken for each other. float32[slots, 3]; counts are whole, and exact up to 2²⁴. Of a pair:
    impressions, Σ ln(position), 0. Of a query: pages, impressions, and Σ over the impressions of how often their items
    had been shown for it before their batch.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self._sums = np.zeros((slots, _COLUMNS), dtype=np.float32)
        self._device = device

    def numbers(self, batch: Batch) -> NDArray[np.float32]:
        """float32[N, 5]: log-odds of the item's share of the query's pages, from those of the mean impression's; the
        logarithm of the impressions behind them; the mean ln(position), from that expected; the product of the first
        two; and the log-odds of the share again, from those expected of any item.

        Where every candidate is on every page the first is zero for all of them; it lies within ±7.8.
        """
        shown = self._read(_pairs(batch), "pair")
        pages, impressions, before = self._read(batch.query, "query")[batch.page_of].T
        count = shown[:, 0]
        # Σ over the items of their impressions squared is the sum of the odd numbers below: 2·before + 1 each.
        mean = (2.0 * before + impressions) / np.maximum(impressions * pages, 1.0)
        mean = np.clip(mean, 0.0, 1.0)
        share = np.clip((count + _PAGES * mean) / (pages + _PAGES), 0.0, 1.0)
        seen = np.log1p(count) * _LOG_SCALE
        height = (shown[:, 1] + _HEIGHT) / (count + 1.0) - _HEIGHT
        more = _log_odds(share) - _log_odds(mean)
        plain = np.log((count + 1.0) / (np.maximum(pages - count, 0.0) + _SHARE)) + np.log(_SHARE)
        numbers = np.stack([more, seen, height, more * seen, plain], axis=1)
        numbers[count == 0] = 0.0
        return numbers.astype(np.float32)

    def to_add(self, batch: Batch) -> RowGradients:
        """What `add` is to be given of a batch; it adds up over ranks."""
        before = self._read(_pairs(batch), "pair")[:, 0]
        ones, none = np.ones(batch.impressions), np.zeros(batch.impressions)
        of_pairs = np.stack([ones, np.log(batch.positions), none], axis=1)
        of_queries = np.stack(
            [np.ones(batch.pages), *(np.bincount(batch.page_of, each, batch.pages) for each in (ones, before))], axis=1
        )
        keys = np.concatenate([self._slots(_pairs(batch), "pair"), self._slots(batch.query, "query")], axis=1)
        slots, index = np.unique(keys, return_inverse=True)
        to_count = np.tile(np.concatenate([of_pairs, of_queries]), (_DEPTH, 1)).T
        sums = np.stack([np.bincount(index.ravel(), each, len(slots)) for each in to_count], axis=1)
        return RowGradients(
            torch.from_numpy(slots).to(self._device), torch.from_numpy(sums.astype(np.float32)).to(self._device)
        )

    def nothing(self) -> RowGradients:
        """That of no batch."""
        return RowGradients.none(_COLUMNS, self._device)

    def add(self, change: RowGradients) -> None:
        """Count a batch that has been scored."""
        self._sums[change.rows.cpu().numpy()] += change.gradient.cpu().numpy()

    def export(self) -> dict[str, torch.Tensor]:
        """The rows in use."""
        used = np.flatnonzero(self._sums[:, 0])
        return {"rows": torch.from_numpy(used), "sums": torch.from_numpy(self._sums[used])}

    def restore(self, exported: dict[str, torch.Tensor]) -> None:
        """Take up what `export` gave, where nothing has been counted."""
        self._sums[exported["rows"].numpy()] = exported["sums"].numpy()

    def _read(self, keys: U64, field: str) -> NDArray[np.float64]:
        """float64[K, 2]: of each key the row with the lower count."""
        found = self._sums[self._slots(keys, field)].astype(np.float64)
        lower: NDArray[np.float64] = found[found[:, :, 0].argmin(axis=0), np.arange(len(keys))]
        return lower

    def _slots(self, keys: U64, field: str) -> NDArray[np.int64]:
        """int64[2, K]."""
        return np.stack([rows(keys, f"exposure of {field} {depth}", len(self._sums)) for depth in range(_DEPTH)])


def _pairs(batch: Batch) -> U64:
    return cross(batch.query[batch.page_of], batch.item)


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = _BOUND + (1.0 - 2.0 * _BOUND) * share
    odds: NDArray[np.float64] = np.log(bounded) - np.log1p(-bounded)
    return odds
