"""How often, and how high, an item has been shown for a query: what the ranker that wrote the log thought of it.

A pair's share of its query's pages is among the oldest features of click models; that it moves P(level) is a
reconstruction. It says nothing of what was never shown: there all numbers are zero.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, cross, row_indices
from prectr.model.layers.gradients import SparseGradient

EXPOSURE_FEATURES: Final = 5
"""Columns of `ExposureCounts.numbers`,"""
LEVEL_FEATURES: Final = 4
"""of which the first tell of levels. The last does not: where everything is shown it is high for everything."""

_COLUMNS: Final = 3
_DEPTH: Final = 2
_PRIOR_PAGES: Final = 5.0
"""Pages of the query that an item's expected share of them counts for."""
_PRIOR_ABSENT_PAGES: Final = 5.0
"""Pages without the item for one with it, as expected of an item before anything was shown: a page shows a sixth."""
_SHARE_MARGIN: Final = 0.02
"""How near to none and to all of the pages a share is told from them."""
_PRIOR_LOG_POSITION: Final = 1.5
"""ln(position) expected of an item before it was shown: that of the middle of a page of ten."""
_LOG_SCALE: Final = 0.3


class ExposureSketch:
    """What was shown, by (query, item) and by query: a count-min sketch of two rows.

    After Cormode and Muthukrishnan 2005: of the two counts that a key has the lower one counts, so that two keys must
    meet twice to be taken for each other. float32[slots, 3]; counts are whole, and exact up to 2²⁴. Of a pair:
    impressions, Σ ln(position), 0. Of a query: pages, impressions, and Σ over the impressions of how often their items
    had been shown for it before their batch.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._cells = np.zeros((size, _COLUMNS), dtype=np.float32)
        self._device = device

    def features(self, batch: Batch) -> NDArray[np.float32]:
        """float32[N, 5]: log-odds of the item's share of the query's pages, from those of the mean impression's; the
        logarithm of the impressions behind them; the mean ln(position), from that expected; the product of the first
        two; and the log-odds of the share again, from those expected of any item.

        Where every candidate is on every page the first is zero for all of them; it lies within ±7.8.
        """
        pair_counts = self._estimate(_pair_keys(batch), "pair")
        pages, impressions, prior_exposures = self._estimate(batch.query, "query")[batch.page_of].T
        count = pair_counts[:, 0]
        # Σ over the items of their impressions squared is the sum of the odd numbers below: 2·before + 1 each.
        mean_share = (2.0 * prior_exposures + impressions) / np.maximum(impressions * pages, 1.0)
        mean_share = np.clip(mean_share, 0.0, 1.0)
        share = np.clip((count + _PRIOR_PAGES * mean_share) / (pages + _PRIOR_PAGES), 0.0, 1.0)
        log_count = np.log1p(count) * _LOG_SCALE
        mean_log_position = (pair_counts[:, 1] + _PRIOR_LOG_POSITION) / (count + 1.0) - _PRIOR_LOG_POSITION
        share_lift = _log_odds(share) - _log_odds(mean_share)
        share_log_odds = np.log((count + 1.0) / (np.maximum(pages - count, 0.0) + _PRIOR_ABSENT_PAGES)) + np.log(
            _PRIOR_ABSENT_PAGES
        )
        numbers = np.stack([share_lift, log_count, mean_log_position, share_lift * log_count, share_log_odds], axis=1)
        numbers[count == 0] = 0.0
        return numbers.astype(np.float32)

    def update_for(self, batch: Batch) -> SparseGradient:
        """What `add` is to be given of a batch; it adds up over ranks."""
        prior_exposures = self._estimate(_pair_keys(batch), "pair")[:, 0]
        ones, zeros = np.ones(batch.impressions), np.zeros(batch.impressions)
        pair_addends = np.stack([ones, np.log(batch.positions), zeros], axis=1)
        query_addends = np.stack(
            [
                np.ones(batch.pages),
                *(np.bincount(batch.page_of, each, batch.pages) for each in (ones, prior_exposures)),
            ],
            axis=1,
        )
        keys = np.concatenate(
            [self._cell_indices(_pair_keys(batch), "pair"), self._cell_indices(batch.query, "query")], axis=1
        )
        cells, inverse = np.unique(keys, return_inverse=True)
        addends = np.tile(np.concatenate([pair_addends, query_addends]), (_DEPTH, 1)).T
        sums = np.stack([np.bincount(inverse.ravel(), each, len(cells)) for each in addends], axis=1)
        return SparseGradient(
            torch.from_numpy(cells).to(self._device), torch.from_numpy(sums.astype(np.float32)).to(self._device)
        )

    def empty_update(self) -> SparseGradient:
        """That of no batch."""
        return SparseGradient.empty(_COLUMNS, self._device)

    def apply(self, update: SparseGradient) -> None:
        """Count a batch that has been scored."""
        self._cells[update.indices.cpu().numpy()] += update.values.cpu().numpy()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The rows in use."""
        used = np.flatnonzero(self._cells[:, 0])
        return {"rows": torch.from_numpy(used), "sums": torch.from_numpy(self._cells[used])}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what `export` gave, where nothing has been counted."""
        self._cells[state["rows"].numpy()] = state["sums"].numpy()

    def _estimate(self, keys: U64, field: str) -> NDArray[np.float64]:
        """float64[K, 2]: of each key the row with the lower count."""
        candidates = self._cells[self._cell_indices(keys, field)].astype(np.float64)
        minimum: NDArray[np.float64] = candidates[candidates[:, :, 0].argmin(axis=0), np.arange(len(keys))]
        return minimum

    def _cell_indices(self, keys: U64, field: str) -> NDArray[np.int64]:
        """int64[2, K]."""
        return np.stack(
            [row_indices(keys, f"exposure of {field} {depth}", len(self._cells)) for depth in range(_DEPTH)]
        )


def _pair_keys(batch: Batch) -> U64:
    return cross(batch.query[batch.page_of], batch.item)


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = _SHARE_MARGIN + (1.0 - 2.0 * _SHARE_MARGIN) * share
    log_odds: NDArray[np.float64] = np.log(bounded) - np.log1p(-bounded)
    return log_odds
