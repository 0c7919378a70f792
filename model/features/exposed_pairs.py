"""Which items have been shown for which query: a bounded set, in bits picked by hash."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, cross, rows
from prectr.model.layers.gradients import RowGradients


class ShownPairs:
    """A Bloom filter with one hash (Bloom 1970): what was shown is known; n of others pass for shown with n/slots."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self._shown = np.zeros(slots, dtype=np.bool_)
        self._device = device

    def has(self, batch: Batch) -> Tensor:
        """bool[N]: whether each impression's item has been shown for its query before."""
        return torch.from_numpy(self._shown[self._slots(batch)]).to(self._device)

    def to_add(self, batch: Batch) -> RowGradients:
        """What `add` is to be given of a batch; it adds up over ranks."""
        slots = torch.from_numpy(np.unique(self._slots(batch))).to(self._device)
        return RowGradients(slots, torch.ones(len(slots), 1, device=self._device))

    def nothing(self) -> RowGradients:
        """That of no batch."""
        return RowGradients.none(1, self._device)

    def add(self, change: RowGradients) -> None:
        """The pairs of a batch have been shown."""
        self._shown[change.rows.cpu().numpy()] = True

    def export(self) -> dict[str, Tensor]:
        """The bits, eight a byte."""
        return {"bits": torch.from_numpy(np.packbits(self._shown))}

    def restore(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it is of another number of slots."""
        bits = np.unpackbits(exported["bits"].numpy(), count=len(self._shown)).astype(np.bool_)
        if len(exported["bits"]) * 8 - len(self._shown) not in range(8):
            raise ValueError(f"bits for {len(exported['bits']) * 8} pairs, not {len(self._shown)}")
        self._shown = bits

    def _slots(self, batch: Batch) -> NDArray[np.int64]:
        pairs: U64 = cross(batch.query[batch.page_of], batch.item)
        return rows(pairs, "shown", len(self._shown))
