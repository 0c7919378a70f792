"""Optimizers of hashed tables: each updates only the rows that a batch read."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class SparseOptimizer(Protocol):
    """An update rule for rows of a table; its state has one row for each row of the table."""

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Make the initial state: tensors float32[rows, columns], all zero."""

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Return new values float32[U, columns] of the rows; `state` holds their state and is changed in place."""


@dataclass(frozen=True, slots=True)
class Adagrad:
    """Adagrad, with a step size per coordinate (Duchi et al. 2011): w −= lr·g/(√Σg² + eps)."""

    lr: float
    eps: float = 1e-6

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Make Σg², zero."""
        return {"squares": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Take one step on the rows of a batch."""
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
        """Make z and n, zero; every weight is then zero at the start."""
        return {"n": torch.zeros(rows, columns, device=device), "z": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Take one step on the rows of a batch."""
        n, z = state["n"], state["z"]
        root_before = n.sqrt()
        n.addcmul_(gradient, gradient)
        root = n.sqrt()
        z.add_(gradient).addcmul_(root - root_before, values, value=-1.0 / self.alpha)
        shrunk = torch.sign(z) * (z.abs() - self.l1).clamp_(min=0.0)
        return -shrunk / ((self.beta + root) / self.alpha + self.l2)


@dataclass(frozen=True, slots=True)
class ScAdagrad:
    """SC-Adagrad (Mukkamala and Hein 2017), with a constant damping: w −= g/(prior + Σg²).

    The published form lets the damping decay; constant, a step is a Newton step on the diagonal: Σg² estimates the
    Fisher information, and `prior` is the precision of a Gaussian prior. It converges sooner than Adagrad, whose
    steps shrink with √Σg², and so suits weights whose meaning is stable; it follows a drifting weight more slowly.

    prior: in units of Σg². forgetting: share of Σg² that each step forgets, so that a weight which every batch reads
    keeps following the last 1/forgetting batches (reconstruction); 0: nothing is forgotten.
    """

    prior: float
    forgetting: float = 0.0

    def init_state(self, rows: int, columns: int, device: torch.device) -> dict[str, Tensor]:
        """Make Σg², zero."""
        return {"squares": torch.zeros(rows, columns, device=device)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Take one step on the rows of a batch."""
        squares = state["squares"]
        if self.forgetting:
            squares.mul_(1.0 - self.forgetting)
        squares.addcmul_(gradient, gradient)
        return values.addcdiv(gradient, squares + self.prior, value=-1.0)
