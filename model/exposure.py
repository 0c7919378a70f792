"""How often, and how high, an item has been shown for a query: what the ranker that wrote the log thought of it.

A pair's share of its query's pages is among the oldest features of click models; that it moves P(level) is a
reconstruction. It says nothing of what was never shown: there all numbers are zero.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.features import Batch
from model.gradients import RowGradients
from model.hashing import U64, cross, rows

EXPOSURE_NUMBERS: Final = 4
"""Columns of `ExposureCounts.numbers`."""

_DEPTH: Final = 2
_SHARE: Final = 5.0
"""Pages without the item for one with it, as expected of an item before anything was shown: a page shows a sixth."""
_HEIGHT: Final = 1.5
"""ln(position) expected of an item before it was shown: that of the middle of a page of ten."""
_LOG_SCALE: Final = 0.3


class ExposureCounts:
    """Impressions and Σ ln(position) by (query, item), and pages by query: a count-min sketch of two rows.

    After Cormode and Muthukrishnan 2005: of the two counts that a key has the lower one counts, so that two keys must
    meet twice to be taken for each other. float32[slots, 2]; counts are whole, and exact up to 2²⁴.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self._sums = np.zeros((slots, 2), dtype=np.float32)
        self._device = device

    def numbers(self, batch: Batch) -> NDArray[np.float32]:
        """float32[N, 4]: log-odds of being on a page of the query, from those expected of any item; the logarithm of
        the impressions behind them; the mean ln(position), from that expected; and the product of the first two.
        """
        shown = self._read(_pairs(batch), "pair")
        pages = self._read(batch.query, "query")[batch.page_of, 0]
        count = shown[:, 0]
        share = np.log((count + 1.0) / (np.maximum(pages - count, 0.0) + _SHARE)) + np.log(_SHARE)
        seen = np.log1p(count) * _LOG_SCALE
        height = (shown[:, 1] + _HEIGHT) / (count + 1.0) - _HEIGHT
        numbers = np.stack([share, seen, height, share * seen], axis=1)
        numbers[count == 0] = 0.0
        return numbers.astype(np.float32)

    def to_add(self, batch: Batch) -> RowGradients:
        """What `add` is to be given of a batch; it adds up over ranks."""
        pairs, pages = self._slots(_pairs(batch), "pair"), self._slots(batch.query, "query")
        slots, index = np.unique(np.concatenate([pairs.ravel(), pages.ravel()]), return_inverse=True)
        counts = np.bincount(index, minlength=len(slots))
        heights = np.concatenate([np.tile(np.log(batch.positions), _DEPTH), np.zeros(pages.size)])
        sums = np.stack([counts, np.bincount(index, weights=heights, minlength=len(slots))], axis=1)
        return RowGradients(
            torch.from_numpy(slots).to(self._device), torch.from_numpy(sums.astype(np.float32)).to(self._device)
        )

    def nothing(self) -> RowGradients:
        """That of no batch."""
        return RowGradients(
            torch.empty(0, dtype=torch.int64, device=self._device), torch.empty(0, 2, device=self._device)
        )

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
