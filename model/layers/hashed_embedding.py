"""Hashed tables of weights with sparse updates: only the rows of a batch are read, and only they change.

A table has a fixed number of rows, whatever number of ids goes through it. Starting values are a function
of (row, column, seed), so that a checkpoint holds only the rows that training has changed.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.hashing import uniform
from prectr.model.layers.gradients import SparseGradient

_INIT_CHUNK_ROWS = 1 << 16


@dataclass(slots=True)
class GatheredRows:
    """The rows of a table that a batch needs, each once.

    `values` (float32[U, columns]) is a leaf that collects the gradient. `index` (int64, the shape of the
    wanted rows) says which of them each place wants.
    """

    values: Tensor
    inverse: Tensor
    indices: Tensor

    def lookup(self) -> Tensor:
        """The values at each place, float32[*index.shape, columns]."""
        return torch.nn.functional.embedding(self.inverse, self.values)


class SparseOptimizer(Protocol):
    """How gradients change the rows of a table; its state has one row for each of the table's."""

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """The state at the start: tensors [rows, columns], all zero."""

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """New values of the rows [U, columns]; `state` holds their rows of state, changed in place."""


@dataclass(frozen=True, slots=True)
class Adagrad:
    """Adagrad, a step size a coordinate (Duchi et al. 2011): w −= rate·g/(√Σg² + eps)."""

    lr: float
    eps: float = 1e-6

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Σg², zero."""
        return {"squares": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """One step on the rows of a batch."""
        squares = state["squares"].addcmul_(gradient, gradient)
        return values.addcdiv(gradient, squares.sqrt().add_(self.eps), value=-self.lr)


@dataclass(frozen=True, slots=True)
class Ftrl:
    """FTRL-Proximal, per coordinate, in closed form (McMahan et al. 2013, algorithm 1).

    n += g²; σ = (√n_new − √n_old)/α; z += g − σ·w;
    w = 0 where |z| ≤ λ1, else −(z − sign(z)·λ1)/((β + √n)/α + λ2).
    """

    alpha: float
    beta: float
    l1: float
    l2: float

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """z and n, zero; so every weight is zero at the start."""
        return {"n": torch.zeros(rows, columns, device=device), "z": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """One step on the rows of a batch."""
        n, z = state["n"], state["z"]
        root_before = n.sqrt()
        n.addcmul_(gradient, gradient)
        root = n.sqrt()
        z.add_(gradient).addcmul_(root - root_before, values, value=-1.0 / self.alpha)
        shrunk = torch.sign(z) * (z.abs() - self.l1).clamp_(min=0.0)
        return -shrunk / ((self.beta + root) / self.alpha + self.l2)


@dataclass(frozen=True, slots=True)
class ScAdagrad:
    """Newton steps on the diagonal: w −= g/(prior + Σg²) (reconstruction).

    The mean of a Gaussian posterior, each coordinate by itself, with Σg² for the Fisher information and a
    prior variance of 1/prior. It settles sooner than Adagrad, whose steps fall with √Σg², and so it fits
    weights that mean one thing for good; it follows a changing one more slowly.
    """

    prior: float

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Σg², zero."""
        return {"squares": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """One step on the rows of a batch."""
        squares = state["squares"].addcmul_(gradient, gradient)
        return values.addcdiv(gradient, squares + self.prior, value=-1.0)


class HashedEmbedding:
    """A table float32[rows, columns] whose rows are picked by hash and change by a `SparseRule`."""

    def __init__(
        self, rows: int, columns: int, optimizer: SparseOptimizer, *, seed: int, scale: float, device: torch.device
    ) -> None:
        """Values at the start are uniform in ±`scale`, or zero where that is 0."""
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
        """The rows `wanted` (any shape), each read once, ready to collect a gradient."""
        unique, inverse = np.unique(indices, return_inverse=True)
        rows = torch.from_numpy(unique).to(self._device)
        values = self.values.index_select(0, rows).requires_grad_()
        return GatheredRows(values, torch.from_numpy(inverse.reshape(indices.shape)).to(self._device), rows)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """The rows `wanted` as they are, float32[*wanted.shape, columns], without a gradient."""
        return torch.nn.functional.embedding(torch.from_numpy(indices).to(self._device), self.values)

    def empty_gradient(self) -> SparseGradient:
        """That of no rows."""
        return SparseGradient(self.values.new_empty(0, dtype=torch.int64), self.values[:0])

    def apply(self, gradient: SparseGradient) -> None:
        """Change rows by their gradient."""
        rows = gradient.indices
        state = {name: tensor.index_select(0, rows) for name, tensor in self.optimizer_state.items()}
        with torch.no_grad():
            before = self.values.index_select(0, rows)
            self.values.index_copy_(0, rows, self.optimizer.update(before, gradient.values, state))
            for name, tensor in state.items():
                self.optimizer_state[name].index_copy_(0, rows, tensor)
            self._updated[rows] = True

    def state_dict(self) -> dict[str, Tensor]:
        """The rows that training has changed: their numbers, values and state, on the CPU."""
        rows = self._updated.nonzero().squeeze(1)
        exported = {"rows": rows.cpu(), "values": self.values.index_select(0, rows).cpu()}
        for name, tensor in self.optimizer_state.items():
            exported["state." + name] = tensor.index_select(0, rows).cpu()
        return exported

    def load_state_dict(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave, in a table that has not been trained."""
        rows = exported["rows"].to(self._device)
        self.values.index_copy_(0, rows, exported["values"].to(self._device))
        for name, tensor in self.optimizer_state.items():
            tensor.index_copy_(0, rows, exported["state." + name].to(self._device))
        self._updated[rows] = True
