"""What a batch says about the weights, before any of them changes: gradients that can be added up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor


class SparseGradient(NamedTuple):
    """The gradient of the rows of one table that took part in a batch.

    rows: int64[U], ascending, each once. gradient: float32[U, columns], of the sum of the loss over impressions.
    """

    indices: Tensor
    values: Tensor

    @classmethod
    def empty(cls, columns: int, device: torch.device) -> Self:
        """Of no rows."""
        return cls(torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, columns, device=device))


@dataclass(frozen=True, slots=True)
class Gradients:
    """All gradients of a batch of N impressions; N is 0 where a batch has no pages."""

    impressions: int
    """N."""
    dense: Tensor
    """float32[D]: of the mean of the loss over the impressions; D is 0 in a model of tables alone."""
    tables: Mapping[str, SparseGradient]
    """By table."""
