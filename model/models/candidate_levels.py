"""Scores candidates of a relevance level that a model has hardly learned from, by the levels that it has."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import level_indices
from prectr.model.features.level_prior import Bools, Floats, Ints, borrow_levels
from prectr.model.layers.hashed_embedding import HashedEmbedding

_MIN_SQUARED_GRADIENT: Final = 1.0
"""Σg² of a level's weight from which on the level counts as learned: of some ten to a hundred impressions."""


def learned_levels(position_table: HashedEmbedding) -> Bools:
    """bool[4]: the levels that the model has learned from; position_table: of `hashed_features.position_table`."""
    squares = position_table.optimizer_state["n"][torch.from_numpy(level_indices()).to(position_table.values.device), 0]
    learned: Bools = (squares >= _MIN_SQUARED_GRADIENT).cpu().numpy()
    return learned


def score_candidates(score: Callable[[Batch], Tensor], batch: Batch, learned: Bools) -> Tensor:
    """Logits float32[N] of `score`, in which candidates of levels that were not learned borrow from those that were.

    A candidate's level is the likeliest one, where levels are inferred. Candidates of a level between two learned ones
    are scored at both. Impressions of a log are scored as they are.

    Args:
        score: scores a batch at the levels that it holds.
        batch: of N impressions or candidates.
        learned: bool[4]; if no level was learned, none can be borrowed from.
    """
    borrows = ~learned[batch.likeliest_levels - 1]
    if batch.exposed or not learned.any() or not borrows.any():
        return score(batch)
    borrowed = borrow_levels(learned)
    logits = score(_moved(batch, borrows, borrowed.lower))
    weights = batch.level_weights * borrows[:, None]
    weight_between = weights @ (borrowed.lower != borrowed.upper)
    if weight_between.any():
        at_upper = score(_moved(batch, borrows, borrowed.upper))
        share = (weights @ borrowed.upper_share) / np.where(weight_between > 0, weight_between, 1.0)
        logits = logits + _like(share, logits) * (at_upper - logits)
    return logits + _like(weights @ borrowed.shift, logits)


def borrow_logits(logits: Tensor, learned: Bools) -> Tensor:
    """Log-odds float32[N, 4] by level, in which levels that were not learned borrow from those that were."""
    if learned.all() or not learned.any():
        return logits
    borrowed = borrow_levels(learned)
    return logits @ _like(borrowed.weights, logits) + _like(borrowed.shift, logits)


def _moved(batch: Batch, borrows: Bools, target: Ints) -> Batch:
    """The batch with the weight of each level at the level that it is moved to, for the candidates that borrow."""
    moved = batch.level_weights @ np.eye(len(target))[target]
    return replace(batch, level_weights=np.where(borrows[:, None], moved, batch.level_weights))


def _like(array: Floats, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor)
