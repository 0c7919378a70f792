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
from prectr.model.layers.gradients import RowGradients

_INIT_ROWS = 1 << 16


@dataclass(slots=True)
class Gathered:
    """The rows of a table that a batch needs, each once.

    `values` (float32[U, columns]) is a leaf that collects the gradient. `index` (int64, the shape of the
    wanted rows) says which of them each place wants.
    """

    values: Tensor
    index: Tensor
    unique: Tensor

    def look_up(self) -> Tensor:
        """The values at each place, float32[*index.shape, columns]."""
        return torch.nn.functional.embedding(self.index, self.values)


class SparseRule(Protocol):
    """How gradients change the rows of a table; its state has one row for each of the table's."""

    def state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """The state at the start: tensors [rows, columns], all zero."""

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """New values of the rows [U, columns]; `state` holds their rows of state, changed in place."""


@dataclass(frozen=True, slots=True)
class Adagrad:
    """Adagrad, a step size a coordinate (Duchi et al. 2011): w −= rate·g/(√Σg² + eps)."""

    rate: float
    eps: float = 1e-6

    def state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Σg², zero."""
        return {"squares": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """One step on the rows of a batch."""
        squares = state["squares"].addcmul_(gradient, gradient)
        return values.addcdiv(gradient, squares.sqrt().add_(self.eps), value=-self.rate)


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

    def state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
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
class Newton:
    """Newton steps on the diagonal: w −= g/(prior + Σg²) (reconstruction).

    The mean of a Gaussian posterior, each coordinate by itself, with Σg² for the Fisher information and a
    prior variance of 1/prior. It settles sooner than Adagrad, whose steps fall with √Σg², and so it fits
    weights that mean one thing for good; it follows a changing one more slowly.
    """

    prior: float

    def state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Σg², zero."""
        return {"squares": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """One step on the rows of a batch."""
        squares = state["squares"].addcmul_(gradient, gradient)
        return values.addcdiv(gradient, squares + self.prior, value=-1.0)


class HashedTable:
    """A table float32[rows, columns] whose rows are picked by hash and change by a `SparseRule`."""

    def __init__(
        self, rows: int, columns: int, rule: SparseRule, *, seed: int, scale: float, device: torch.device
    ) -> None:
        """Values at the start are uniform in ±`scale`, or zero where that is 0."""
        self.rule = rule
        self._seed = seed
        self._scale = scale
        self._device = device
        self.values = torch.zeros(rows, columns, device=device)
        if scale > 0:
            for start in range(0, rows, _INIT_ROWS):
                part = np.arange(start, min(rows, start + _INIT_ROWS))
                self.values[start : start + len(part)] = self._starting(part).to(device)
        self.state = rule.state(rows, columns, device)
        self._changed = torch.zeros(rows, dtype=torch.bool, device=device)

    def _starting(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(uniform(rows, self.values.shape[1], self._seed) * np.float32(self._scale))

    def gather(self, wanted: NDArray[np.int64]) -> Gathered:
        """The rows `wanted` (any shape), each read once, ready to collect a gradient."""
        unique, index = np.unique(wanted, return_inverse=True)
        picked = torch.from_numpy(unique).to(self._device)
        values = self.values.index_select(0, picked).requires_grad_()
        return Gathered(values, torch.from_numpy(index.reshape(wanted.shape)).to(self._device), picked)

    def read(self, wanted: NDArray[np.int64]) -> Tensor:
        """The rows `wanted` as they are, float32[*wanted.shape, columns], without a gradient."""
        return torch.nn.functional.embedding(torch.from_numpy(wanted).to(self._device), self.values)

    def no_gradient(self) -> RowGradients:
        """That of no rows."""
        return RowGradients(self.values.new_empty(0, dtype=torch.int64), self.values[:0])

    def apply(self, change: RowGradients) -> None:
        """Change rows by their gradient."""
        picked = change.rows
        state = {name: tensor.index_select(0, picked) for name, tensor in self.state.items()}
        with torch.no_grad():
            before = self.values.index_select(0, picked)
            self.values.index_copy_(0, picked, self.rule.update(before, change.gradient, state))
            for name, tensor in state.items():
                self.state[name].index_copy_(0, picked, tensor)
            self._changed[picked] = True

    def export(self) -> dict[str, Tensor]:
        """The rows that training has changed: their numbers, values and state, on the CPU."""
        numbers = self._changed.nonzero().squeeze(1)
        exported = {"rows": numbers.cpu(), "values": self.values.index_select(0, numbers).cpu()}
        for name, tensor in self.state.items():
            exported["state." + name] = tensor.index_select(0, numbers).cpu()
        return exported

    def restore(self, exported: dict[str, Tensor]) -> None:
        """Take up what `export` gave, in a table that has not been trained."""
        numbers = exported["rows"].to(self._device)
        self.values.index_copy_(0, numbers, exported["values"].to(self._device))
        for name, tensor in self.state.items():
            tensor.index_copy_(0, numbers, exported["state." + name].to(self._device))
        self._changed[numbers] = True
