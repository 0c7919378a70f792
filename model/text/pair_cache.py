"""A bounded cache of the text encoder's output for (query, title) pairs.

A direct-mapped table: a new pair replaces the one in its slot. Values are float16, within ±65,504. Cached values are
checkpointed because re-encoding in a different batch may differ in the last bits.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.hashing import U64, row_indices
from prectr.model.layers.gradients import StateUpdate
from prectr.model.layers.saved_rows import require_rows

_MAX_VALUE: Final = torch.finfo(torch.float16).max
"""What is larger would be cached as infinite."""


class PairCache:
    """float16[size, columns], by the 64-bit key of a pair.

    Updates are `StateUpdate`s by key, so that all ranks of data-parallel training hold the same: if several have
    encoded one pair, the mean is kept. Of the pairs of a batch that hash to one slot, the one with the lowest key wins.
    """

    def __init__(self, size: int, columns: int, device: torch.device) -> None:
        self._values = torch.zeros(size, columns, dtype=torch.float16, device=device)
        self._keys = np.zeros(size, dtype=np.uint64)
        self._steps = np.full(size, -1, dtype=np.int64)

    @property
    def size(self) -> int:
        """Capacity, in pairs."""
        return len(self._keys)

    def find(self, keys: U64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each pair uint64[U]: its slot, and the step at which it was cached; −1 if it is not."""
        slots = row_indices(keys, "pair", self.size)
        return slots, np.where(self._keys[slots] == keys, self._steps[slots], -1)

    def read(self, slots: NDArray[np.int64]) -> Tensor:
        """The cached values, float32[U, columns], on the device."""
        picked = torch.from_numpy(slots).to(self._values.device)
        return self._values.index_select(0, picked).float()

    def updates_for(self, keys: U64, values: Tensor) -> StateUpdate:
        """Make the update that caches values float32[U, columns] of distinct pairs uint64[U]."""
        order = np.argsort(keys.view(np.int64))
        sorted_values = values.index_select(0, torch.from_numpy(order).to(values.device))
        sorted_keys = torch.from_numpy(keys[order].view(np.int64)).to(values.device)
        return StateUpdate(sorted_keys, torch.cat([sorted_values, sorted_values.new_ones(len(order), 1)], dim=1))

    def empty_update(self) -> StateUpdate:
        """An empty update."""
        columns, device = self._values.shape[1] + 1, self._values.device
        return StateUpdate.empty(columns, device)

    def apply(self, update: StateUpdate, step: int) -> None:
        """Apply an update, or the sum of those of several ranks."""
        if not len(update.indices):
            return
        keys = update.indices.cpu().numpy().view(np.uint64)
        order = np.argsort(keys)
        slots, first = np.unique(row_indices(keys[order], "pair", self.size), return_index=True)
        winners = order[first]
        summed = update.values.index_select(0, torch.from_numpy(winners).to(update.values.device))
        means = summed[:, :-1] / summed[:, -1:]
        means.clamp_(-_MAX_VALUE, _MAX_VALUE)
        self._values.index_copy_(0, torch.from_numpy(slots).to(means.device), means.half())
        self._keys[slots] = keys[winners]
        self._steps[slots] = step

    def state_dict(self) -> dict[str, Tensor]:
        """The slots in use."""
        slots = np.flatnonzero(self._steps >= 0)
        return {
            "slots": torch.from_numpy(slots),
            "keys": torch.from_numpy(self._keys[slots].view(np.int64)),
            "steps": torch.from_numpy(self._steps[slots]),
            "values": self._values[torch.from_numpy(slots).to(self._values.device)].cpu(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, into an empty cache. ValueError: it has other slots."""
        require_rows(state["slots"], self.size)
        slots = state["slots"].numpy()
        self._keys[slots] = state["keys"].numpy().view(np.uint64)
        self._steps[slots] = state["steps"].numpy()
        self._values[state["slots"].to(self._values.device)] = state["values"].to(self._values.device)
