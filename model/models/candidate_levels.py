"""Scores candidates of a relevance level that a model has hardly learned from, by the levels that it has."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import level_indices
from prectr.model.features.level_prior import Bools, Floats, borrow_levels
from prectr.model.layers.hashed_embedding import HashedEmbedding

_MIN_SQUARED_GRADIENT: Final = 1.0
"""Σg² of a level's weight from which on the level counts as learned: of some ten to a hundred impressions."""


def learned_levels(position_table: HashedEmbedding) -> Bools:
    """bool[4]: the levels that the model has learned from; position_table: of `hashed_features.position_table`."""
    squares = position_table.optimizer_state["n"][torch.from_numpy(level_indices()).to(position_table.values.device), 0]
    learned: Bools = (squares >= _MIN_SQUARED_GRADIENT).cpu().numpy()
    return learned


def score_candidates(score: Callable[[Batch], Tensor], batch: Batch, learned: Bools) -> Tensor:
    """Logits float32[N] of `score`, in which levels that were not learned borrow from those that were.

    Candidates of a level between two learned ones are scored at both. Impressions of a log are scored as they are.

    Args:
        score: scores a batch at the levels that it holds.
        batch: of N impressions or candidates.
        learned: bool[4]; if no level was learned, none can be borrowed from.
    """
    weights = batch.level_weights
    if batch.exposed or learned.all() or not learned.any() or not weights[:, ~learned].any():
        return score(batch)
    borrowed = borrow_levels(learned)
    logits = score(replace(batch, level_weights=_moved(weights, borrowed.lower)))
    between = borrowed.lower != borrowed.upper
    weight_between = weights @ between
    if weight_between.any():
        at_upper = score(replace(batch, level_weights=_moved(weights, borrowed.upper)))
        share = (weights @ borrowed.upper_share) / np.where(weight_between > 0, weight_between, 1.0)
        logits = logits + _like(share, logits) * (at_upper - logits)
    return logits + _like(weights @ borrowed.shift, logits)


def borrow_logits(logits: Tensor, learned: Bools) -> Tensor:
    """Log-odds float32[N, 4] by level, in which levels that were not learned borrow from those that were."""
    if learned.all() or not learned.any():
        return logits
    borrowed = borrow_levels(learned)
    return logits @ _like(borrowed.weights, logits) + _like(borrowed.shift, logits)


def _moved(weights: Floats, target: np.typing.NDArray[np.int64]) -> Floats:
    """float64[N, 4]: the weight of each level at the level that it is moved to."""
    moved: Floats = weights @ np.eye(len(target))[target]
    return moved


def _like(array: Floats, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor)
