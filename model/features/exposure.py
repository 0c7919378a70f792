"""How often, and how high, an item has been shown for a query: the opinion of the ranker that wrote the log.

A pair's share of its query's pages is among the oldest features of click models; its effect on P(level) is a
reconstruction. For pairs that were never shown all features are zero.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, cross, row_indices
from prectr.model.features.smoothing import log_odds
from prectr.model.layers.gradients import StateUpdate
from prectr.model.layers.saved_rows import require_rows

EXPOSURE_FEATURES: Final = 5
"""Columns of `ExposureSketch.features`,"""
LEVEL_FEATURES: Final = 4
"""of which the first are evidence of the level. The last is not: where every item is shown it is high for all."""

_COLUMNS: Final = 3
_DEPTH: Final = 2
_PRIOR_PAGES: Final = 5.0
"""Pages of the query that an item's expected share of them counts for."""
_PRIOR_ABSENT_PAGES: Final = 5.0
"""Prior odds against an item being on a page: one page in six shows it."""
_SHARE_MARGIN: Final = 0.02
"""Shares are mapped into [margin, 1 − margin], so that their log-odds are finite."""
_PRIOR_LOG_POSITION: Final = 1.5
"""Prior mean of ln(position): the middle of a page of ten."""
_LOG_SCALE: Final = 0.3


class ExposureSketch:
    """What was shown, by (query, item) and by query: a count-min sketch of depth 2.

    After Cormode and Muthukrishnan 2005: the lower of a key's two counts holds, so that an estimate is wrong only if
    both cells collide. Cells are float32[size, 3]; counts are whole numbers, exact up to 2²⁴. Columns of a pair:
    impressions, Σ ln(position), 0. Columns of a query: pages, impressions, and Σ over its impressions of the earlier
    impressions of the same item.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._cells = np.zeros((size, _COLUMNS), dtype=np.float32)
        self._device = device

    def features(self, batch: Batch) -> NDArray[np.float32]:
        """float32[N, 5], per impression, of the item's share of its query's pages:

        0. log-odds of the share, relative to those of the query's mean impression; within ±7.8, and zero for all if
           every candidate is on every page;
        1. ln(1 + impressions), scaled;
        2. mean ln(position), relative to the prior mean;
        3. the product of the first two;
        4. log-odds of the share, relative to the prior.
        """
        pair_counts = self._estimate(_pair_keys(batch), "pair")
        pages, impressions, prior_exposures = self._estimate(batch.query, "query")[batch.page_of].T
        count = pair_counts[:, 0]
        # Σ count² over the query's items equals Σ (2·earlier + 1) over its impressions.
        mean_share = (2.0 * prior_exposures + impressions) / np.maximum(impressions * pages, 1.0)
        mean_share = np.clip(mean_share, 0.0, 1.0)
        share = np.clip((count + _PRIOR_PAGES * mean_share) / (pages + _PRIOR_PAGES), 0.0, 1.0)
        log_count = np.log1p(count) * _LOG_SCALE
        mean_log_position = (pair_counts[:, 1] + _PRIOR_LOG_POSITION) / (count + 1.0) - _PRIOR_LOG_POSITION
        share_lift = _bounded_log_odds(share) - _bounded_log_odds(mean_share)
        share_log_odds = np.log((count + 1.0) / (np.maximum(pages - count, 0.0) + _PRIOR_ABSENT_PAGES)) + np.log(
            _PRIOR_ABSENT_PAGES
        )
        features = np.stack([share_lift, log_count, mean_log_position, share_lift * log_count, share_log_odds], axis=1)
        features[count == 0] = 0.0
        return features.astype(np.float32)

    def update_for(self, batch: Batch) -> StateUpdate:
        """Compute the update of a batch; updates of several ranks can be summed."""
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
        return StateUpdate(
            torch.from_numpy(cells).to(self._device), torch.from_numpy(sums.astype(np.float32)).to(self._device)
        )

    def empty_update(self) -> StateUpdate:
        """An empty update (empty batch)."""
        return StateUpdate.empty(_COLUMNS, self._device)

    def apply(self, update: StateUpdate) -> None:
        """Add the counts of a scored batch."""
        self._cells[update.indices.cpu().numpy()] += update.values.cpu().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """The cells in use."""
        used = np.flatnonzero(self._cells[:, 0])
        return {"rows": torch.from_numpy(used), "sums": torch.from_numpy(self._cells[used])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, into an empty sketch. ValueError: it has other cells."""
        require_rows(state["rows"], len(self._cells))
        self._cells[state["rows"].numpy()] = state["sums"].numpy()

    def _estimate(self, keys: U64, field: str) -> NDArray[np.float64]:
        """float64[K, 3]: the columns of each key, from its cell with the lower count."""
        candidates = self._cells[self._cell_indices(keys, field)].astype(np.float64)
        minimum: NDArray[np.float64] = candidates[candidates[:, :, 0].argmin(axis=0), np.arange(len(keys))]
        return minimum

    def _cell_indices(self, keys: U64, field: str) -> NDArray[np.int64]:
        """int64[2, K]: the cells of each key."""
        return np.stack(
            [row_indices(keys, f"exposure of {field} {depth}", len(self._cells)) for depth in range(_DEPTH)]
        )


def _pair_keys(batch: Batch) -> U64:
    return cross(batch.query[batch.page_of], batch.item)


def _bounded_log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = _SHARE_MARGIN + (1.0 - 2.0 * _SHARE_MARGIN) * share
    return log_odds(bounded)
