"""Linear features: the rows of the weight tables that an impression reads.

Position and level have a small table of their own; ids, groups, crosses and custom features are hashed into a
large one.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashing import cross, row_indices, row_indices_by_field
from prectr.model.layers.hashed_embedding import HashedEmbedding
from prectr.model.layers.sparse_optimizers import Ftrl, ScAdagrad, SparseOptimizer
from prectr.state.aggregates import LEVEL_COUNT, MAX_HALF_LIVES

Indices = NDArray[np.int64]

FEATURE_FIELD: Final = "feature"
"""The field, by its salt, of the hashes of `FeatureRows`."""

_POSITIONS: Final = 200
_FIRST_LEVEL: Final = _POSITIONS + 1
_FIRST_EXPECTED_LEVEL: Final = _FIRST_LEVEL + 5
_EXPECTED_LEVEL_BINS: Final = 24
"""Bins of the expected level, each an eighth of a level wide,"""
_FIRST_SIMILARITY: Final = _FIRST_EXPECTED_LEVEL + _EXPECTED_LEVEL_BINS
_SIMILARITY_BINS: Final = 20
"""and of e_q·e_i, from −1 to 1."""
_POSITION_TABLE_ROWS: Final = _FIRST_SIMILARITY + _SIMILARITY_BINS


def position_table(config: TrainerConfig, device: torch.device) -> HashedEmbedding:
    """Make the table of bias, positions and levels."""
    optimizer = Ftrl(config.position_ftrl_alpha, config.position_ftrl_beta, config.ftrl_l1, config.ftrl_l2)
    return HashedEmbedding(_POSITION_TABLE_ROWS, 1, optimizer, seed=config.seed, scale=0.0, device=device)


def weight_table(config: TrainerConfig, optimizer: SparseOptimizer, device: torch.device) -> HashedEmbedding:
    """Make a table for hashed features, initially zero."""
    return HashedEmbedding(config.wide_rows, 1, optimizer, seed=config.seed, scale=0.0, device=device)


def recency_table(config: TrainerConfig, device: torch.device) -> HashedEmbedding:
    """Make the table of the weights of `recent_shifts`, one for each half-life, initially zero."""
    optimizer = ScAdagrad(config.recency_prior, config.recency_forgetting)
    return HashedEmbedding(MAX_HALF_LIVES, 1, optimizer, seed=config.seed, scale=0.0, device=device)


def recency_indices(batch: Batch) -> Indices:
    """int64[H]: rows of the weights of the half-lives."""
    return np.arange(batch.query_decayed.shape[1])


def position_indices(batch: Batch) -> Indices:
    """int64[N, 3]: rows of the bias, the position (200 and beyond share one) and the level.

    With text features, int64[N, 5]: also rows of the binned expected level and of the binned e_q·e_i.
    """
    bias = np.zeros(batch.impressions, dtype=np.int64)
    columns = [bias, np.minimum(batch.positions, _POSITIONS), _FIRST_LEVEL + batch.likeliest_levels]
    if batch.similarity is not None:
        above_lowest = batch.level_weights @ np.arange(LEVEL_COUNT)
        columns.append(
            _FIRST_EXPECTED_LEVEL + np.minimum((above_lowest * 8).astype(np.int64), _EXPECTED_LEVEL_BINS - 1)
        )
        bins = ((batch.similarity + 1.0) * (_SIMILARITY_BINS / 2)).astype(np.int64)
        columns.append(_FIRST_SIMILARITY + np.clip(bins, 0, _SIMILARITY_BINS - 1))
    return _columns(*columns)


def level_indices() -> Indices:
    """int64[4]: rows of the levels 1 to 4."""
    return _FIRST_LEVEL + np.arange(1, LEVEL_COUNT + 1)


def id_indices(batch: Batch, size: int) -> Indices:
    """int64[N, 3]: user, query, item."""
    user, query, item = row_indices_by_field([("user", batch.user), ("query", batch.query), ("item", batch.item)], size)
    return _columns(user[batch.page_of], query[batch.page_of], item)


def group_indices(batch: Batch, size: int) -> Indices:
    """int64[N, 3]: category, brand, group (category × brand × price band)."""
    fields = [("category", batch.category), ("brand", batch.brand), ("group", batch.group)]
    return _columns(*row_indices_by_field(fields, size))


def cross_indices(batch: Batch, size: int) -> Indices:
    """int64[N, 2]: query × level, user × level."""
    levels = batch.likeliest_levels.astype(np.uint64)
    pages = np.concatenate([batch.query[batch.page_of], batch.user[batch.page_of]])
    crosses = cross(pages, np.concatenate([levels, levels]))
    query, user = crosses[: batch.impressions], crosses[batch.impressions :]
    return _columns(*row_indices_by_field([("query × level", query), ("user × level", user)], size))


def cross_indices_per_level(batch: Batch, size: int) -> Indices:
    """int64[P, 2, 4]: query × level and user × level, for each of the four levels."""
    levels = np.arange(1, LEVEL_COUNT + 1, dtype=np.uint64)
    query, user = cross(batch.query[:, None], levels), cross(batch.user[:, None], levels)
    return np.stack([row_indices(query, "query × level", size), row_indices(user, "user × level", size)], axis=1)


def slope_indices(batch: Batch, size: int) -> Indices:
    """int64[N, 2]: rows of the slopes over the level, of query and user."""
    query, user = row_indices_by_field([("query slope", batch.query), ("user slope", batch.user)], size)
    return _columns(query[batch.page_of], user[batch.page_of])


def pair_indices(batch: Batch, size: int) -> Indices:
    """int64[N]: rows of query × item."""
    return row_indices(cross(batch.query[batch.page_of], batch.item), "query × item", size)


def feature_indices(batch: Batch, size: int) -> Indices:
    """int64[N, K]: rows of the custom features of the item, then of its page; see `FeatureRows`."""
    of_item, of_page = batch.item_features.hashes, batch.page_features.hashes
    # Most logs have no custom features, and then nothing is to be hashed.
    if not of_item.shape[1] + of_page.shape[1]:
        return np.empty((batch.impressions, 0), dtype=np.int64)
    return row_indices(np.concatenate([of_item, of_page[batch.page_of]], axis=1), FEATURE_FIELD, size)


def weigh_features(looked_up: Tensor, batch: Batch) -> Tensor:
    """Multiply the last K columns of float32[N, any, 1], those of `feature_indices`, by the weights of the features."""
    columns = batch.item_features.weights.shape[1] + batch.page_features.weights.shape[1]
    if not columns:
        return looked_up
    weights, fixed = feature_weights(batch), looked_up.shape[1] - columns
    factors = torch.from_numpy(weights).to(looked_up.device).unsqueeze(2)
    return torch.cat([looked_up[:, :fixed], looked_up[:, fixed:] * factors], dim=1)


def feature_weights(batch: Batch) -> NDArray[np.float32]:
    """float32[N, K]: the weights of the rows of `feature_indices`."""
    return np.concatenate([batch.item_features.weights, batch.page_features.weights[batch.page_of]], axis=1)


def _columns(*columns: Indices) -> Indices:
    """int64[N, columns]: `np.stack(columns, axis=1)`, cheaper for short columns."""
    stacked = np.empty((len(columns[0]), len(columns)), dtype=np.int64)
    for number, column in enumerate(columns):
        stacked[:, number] = column
    return stacked


def sum_weights(*looked_up: Tensor) -> Tensor:
    """float32[N]: the sum of an impression's weights; looked_up: float32[N, any, 1] each."""
    return torch.cat(looked_up, dim=1).sum(dim=(1, 2))
