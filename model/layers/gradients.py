"""What a batch contributes before anything changes: gradients of the weights, and updates of other online state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor


class SparseGradient(NamedTuple):
    """The gradient of those rows of one table that a batch read.

    indices: int64[U], ascending and distinct. values: float32[U, columns], of the loss summed over impressions.
    """

    indices: Tensor
    values: Tensor


class StateUpdate(NamedTuple):
    """What a batch adds to state that is not trained: counts, bits of a filter, or entries of a cache.

    Updates of several ranks are summed by index. indices: int64[U], distinct. values: float32[U, columns].
    """

    indices: Tensor
    values: Tensor

    @classmethod
    def empty(cls, columns: int, device: torch.device) -> Self:
        """Return an update without rows."""
        return cls(torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, columns, device=device))


@dataclass(frozen=True, slots=True)
class Gradients:
    """All gradients of a batch of N impressions (0 for a batch without pages), and its state updates."""

    impressions: int
    """N."""
    dense: Tensor
    """float32[D], of the loss averaged over impressions; D is 0 in a model of tables alone."""
    tables: Mapping[str, SparseGradient]
    """By table."""
    state_updates: Mapping[str, StateUpdate] = field(default_factory=dict)
    """By the name of the state."""
