"""Which items have been shown for which query: a bounded set, in bits picked by hash."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, cross, row_indices
from prectr.model.layers.gradients import SparseGradient


class ExposedPairs:
    """A Bloom filter with one hash (Bloom 1970): what was shown is known; n of others pass for shown with n/slots."""

    def __init__(self, bits: int, device: torch.device) -> None:
        self._bits = np.zeros(bits, dtype=np.bool_)
        self._device = device

    def contains(self, batch: Batch) -> Tensor:
        """bool[N]: whether each impression's item has been shown for its query before."""
        return torch.from_numpy(self._bits[self._bit_indices(batch)]).to(self._device)

    def update_for(self, batch: Batch) -> SparseGradient:
        """What `add` is to be given of a batch; it adds up over ranks."""
        indices = torch.from_numpy(np.unique(self._bit_indices(batch))).to(self._device)
        return SparseGradient(indices, torch.ones(len(indices), 1, device=self._device))

    def empty_update(self) -> SparseGradient:
        """That of no batch."""
        return SparseGradient.empty(1, self._device)

    def apply(self, update: SparseGradient) -> None:
        """The pairs of a batch have been shown."""
        self._bits[update.indices.cpu().numpy()] = True

    def state_dict(self) -> dict[str, Tensor]:
        """The bits, eight a byte."""
        return {"bits": torch.from_numpy(np.packbits(self._bits))}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it is of another number of slots."""
        bits = np.unpackbits(state["bits"].numpy(), count=len(self._bits)).astype(np.bool_)
        if len(state["bits"]) * 8 - len(self._bits) not in range(8):
            raise ValueError(f"bits for {len(state['bits']) * 8} pairs, not {len(self._bits)}")
        self._bits = bits

    def _bit_indices(self, batch: Batch) -> NDArray[np.int64]:
        pairs: U64 = cross(batch.query[batch.page_of], batch.item)
        return row_indices(pairs, "shown", len(self._bits))
