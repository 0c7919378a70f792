"""The linear features: which rows of which table of weights an impression has.

Position and level have a small table to themselves; ids, groups and crosses are hashed into a large one.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainerConfig
from model.embeddings import Ftrl, HashedTable, SparseRule
from model.features import Batch
from model.hashing import cross, rows

Rows = NDArray[np.int64]

_POSITIONS: Final = 200
_FIRST_LEVEL: Final = _POSITIONS + 1
_PLACE_ROWS: Final = _FIRST_LEVEL + 5


def place_table(config: TrainerConfig, device: torch.device) -> HashedTable:
    """Weights of the bias, the positions and the levels."""
    rule = Ftrl(config.place_alpha, config.place_beta, config.ftrl_l1, config.ftrl_l2)
    return HashedTable(_PLACE_ROWS, 1, rule, seed=config.seed, scale=0.0, device=device)


def weight_table(config: TrainerConfig, rule: SparseRule, device: torch.device) -> HashedTable:
    """Weights of hashed features, all zero at the start."""
    return HashedTable(config.wide_rows, 1, rule, seed=config.seed, scale=0.0, device=device)


def place_rows(batch: Batch) -> Rows:
    """int64[N, 3]: rows of the bias, the position (those from 200 on together) and the level."""
    bias = np.zeros(batch.impressions, dtype=np.int64)
    return np.stack([bias, np.minimum(batch.positions, _POSITIONS), _FIRST_LEVEL + batch.levels], axis=1)


def id_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 3]: user, query, item."""
    page_of = batch.page_of
    user, query = rows(batch.user, "user", size)[page_of], rows(batch.query, "query", size)[page_of]
    return np.stack([user, query, rows(batch.item, "item", size)], axis=1)


def group_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 3]: category, brand, group (category × brand × price band)."""
    category, brand = rows(batch.category, "category", size), rows(batch.brand, "brand", size)
    return np.stack([category, brand, rows(batch.group, "group", size)], axis=1)


def cross_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 2]: query × level, user × level."""
    levels = batch.levels.astype(np.uint64)
    query, user = cross(batch.query[batch.page_of], levels), cross(batch.user[batch.page_of], levels)
    return np.stack([rows(query, "query × level", size), rows(user, "user × level", size)], axis=1)


def slope_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 2]: the query's and the user's weight that is multiplied by the level."""
    page_of = batch.page_of
    query, user = rows(batch.query, "query slope", size)[page_of], rows(batch.user, "user slope", size)[page_of]
    return np.stack([query, user], axis=1)


def linear(*looked_up: Tensor) -> Tensor:
    """The sum of all weights of an impression, float32[N], from parts float32[N, any, 1]."""
    return torch.cat(looked_up, dim=1).sum(dim=(1, 2))
