"""Hashed tables of weights with sparse updates: a batch reads and changes only its own rows.

A table has a fixed number of rows, however many ids there are. Initial values are a function of
(row, column, seed), so that a checkpoint holds only the rows that training has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.hashing import uniform
from prectr.model.layers.gradients import SparseGradient
from prectr.model.layers.saved_rows import require_rows
from prectr.model.layers.sparse_optimizers import SparseOptimizer

_INIT_CHUNK_ROWS: Final = 1 << 16


@dataclass(slots=True)
class GatheredRows:
    """The distinct rows of a table that a batch needs.

    values: float32[U, columns], a leaf that collects the gradient. inverse: int64, of the shape of the requested
    indices, with the row of `values` for each of them. indices: int64[U], the rows of the table, ascending.
    """

    values: Tensor
    inverse: Tensor
    indices: Tensor

    def lookup(self) -> Tensor:
        """The values of all requested indices, float32[*inverse.shape, columns]."""
        return torch.nn.functional.embedding(self.inverse, self.values)


class HashedEmbedding:
    """A table float32[rows, columns] whose rows are selected by hash and updated by a `SparseOptimizer`."""

    def __init__(
        self, rows: int, columns: int, optimizer: SparseOptimizer, *, seed: int, scale: float, device: torch.device
    ) -> None:
        """Make a table with initial values uniform in ±`scale`, or zero where that is 0."""
        self.optimizer = optimizer
        self._seed = seed
        self._scale = scale
        self._device = device
        self.values = torch.zeros(rows, columns, device=device)
        if scale > 0:
            for start in range(0, rows, _INIT_CHUNK_ROWS):
                chunk = np.arange(start, min(rows, start + _INIT_CHUNK_ROWS))
                self.values[start : start + len(chunk)] = self._initial_values(chunk).to(device)
        self.optimizer_state = optimizer.init_state(rows, columns, device)
        self._updated = torch.zeros(rows, dtype=torch.bool, device=device)

    def _initial_values(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(uniform(rows, self.values.shape[1], self._seed) * np.float32(self._scale))

    def gather(self, indices: NDArray[np.int64]) -> GatheredRows:
        """Read the distinct rows of `indices` (int64, any shape), ready to collect a gradient."""
        unique, inverse = torch.unique(torch.from_numpy(indices), return_inverse=True)
        rows = unique.to(self._device)
        values = self.values.index_select(0, rows).requires_grad_()
        return GatheredRows(values, inverse.to(self._device), rows)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Look up rows without a gradient: float32[*indices.shape, columns]."""
        return torch.nn.functional.embedding(torch.from_numpy(indices).to(self._device), self.values)

    def empty_gradient(self) -> SparseGradient:
        """The gradient of no rows."""
        return SparseGradient(self.values.new_empty(0, dtype=torch.int64), self.values[:0])

    def apply(self, gradient: SparseGradient) -> None:
        """Update rows by their gradient."""
        rows = gradient.indices
        state = {name: tensor.index_select(0, rows) for name, tensor in self.optimizer_state.items()}
        with torch.no_grad():
            before = self.values.index_select(0, rows)
            self.values.index_copy_(0, rows, self.optimizer.update(before, gradient.values, state))
            for name, tensor in state.items():
                self.optimizer_state[name].index_copy_(0, rows, tensor)
            self._updated.index_fill_(0, rows, True)

    def state_dict(self) -> dict[str, Tensor]:
        """Indices, values and optimizer state of the rows that training has changed, on the CPU."""
        rows = self._updated.nonzero().squeeze(1)
        exported = {"rows": rows.cpu(), "values": self.values.index_select(0, rows).cpu()}
        for name, tensor in self.optimizer_state.items():
            exported["state." + name] = tensor.index_select(0, rows).cpu()
        return exported

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, into an untrained table. ValueError: it has other rows."""
        require_rows(state["rows"], len(self.values))
        rows = state["rows"].to(self._device)
        self.values.index_copy_(0, rows, state["values"].to(self._device))
        for name, tensor in self.optimizer_state.items():
            tensor.index_copy_(0, rows, state["state." + name].to(self._device))
        self._updated[rows] = True
