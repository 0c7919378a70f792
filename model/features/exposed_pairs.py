"""Which items have been shown for which query: a bounded set, in bits selected by hash."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import U64, cross, row_indices
from prectr.model.layers.gradients import StateUpdate


class ExposedPairs:
    """A Bloom filter with one hash (Bloom 1970).

    No false negatives; after n distinct pairs, the rate of false positives is n / bits.
    """

    def __init__(self, bits: int, device: torch.device) -> None:
        self._bits = np.zeros(bits, dtype=np.bool_)
        self._device = device

    def contains(self, batch: Batch) -> Tensor:
        """bool[N]: whether each impression's item was shown for its query in an earlier batch."""
        return torch.from_numpy(self._bits[self._bit_indices(batch)]).to(self._device)

    def update_for(self, batch: Batch) -> StateUpdate:
        """Compute the update of a batch; updates of several ranks can be summed."""
        indices = torch.from_numpy(np.unique(self._bit_indices(batch))).to(self._device)
        return StateUpdate(indices, torch.ones(len(indices), 1, device=self._device))

    def empty_update(self) -> StateUpdate:
        """An empty update (empty batch)."""
        return StateUpdate.empty(1, self._device)

    def apply(self, update: StateUpdate) -> None:
        """Mark the pairs of a batch as shown."""
        self._bits[update.indices.cpu().numpy()] = True

    def state_dict(self) -> dict[str, Tensor]:
        """The bits, packed eight per byte."""
        return {"bits": torch.from_numpy(np.packbits(self._bits))}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned. ValueError: it has another number of bits."""
        bits = np.unpackbits(state["bits"].numpy(), count=len(self._bits)).astype(np.bool_)
        if len(state["bits"]) * 8 - len(self._bits) not in range(8):
            raise ValueError(f"bits for {len(state['bits']) * 8} pairs, not {len(self._bits)}")
        self._bits = bits

    def _bit_indices(self, batch: Batch) -> NDArray[np.int64]:
        pairs: U64 = cross(batch.query[batch.page_of], batch.item)
        return row_indices(pairs, "shown", len(self._bits))
