"""Which rows of the hashed tables `prectr` reads, and how the looked-up rows are laid out."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import (
    Indices,
    cross_indices_per_level,
    feature_indices,
    group_indices,
    id_indices,
    level_indices,
    pair_indices,
    position_indices,
    slope_indices,
    sum_weights,
    weigh_features,
)
from prectr.model.features.hashing import row_indices
from prectr.model.layers.mlp import EmbeddingLayout, embedding_indices
from prectr.state.aggregates import LEVEL_COUNT

_POSITION_ROWS: Final = 2
"""Bias and position; the level is what the mixture is over."""
_CROSSES: Final = 2
"""Query × level and user × level."""


def lookup_indices(batch: Batch, embedding_rows: int, wide_rows: int, *, cold_start: bool) -> dict[str, Indices]:
    """Rows by table; cold_start: also the query's last clicks and the pairs query × item.

    embedding: int64[rows of `EmbeddingLayout` (+ 2·C)]. position: int64[2·N + 4]. wide: int64[(6 + K)·N + 8·P], with
    K of custom features. slope: int64[N, 2]. pair: int64[N].
    """
    embedding = [embedding_indices(batch, embedding_rows)]
    if cold_start:
        clicks = batch.query_history
        embedding += [
            row_indices(clicks.item, "item", embedding_rows),
            row_indices(clicks.group, "group", embedding_rows),
        ]
    ids = np.concatenate(
        [id_indices(batch, wide_rows), group_indices(batch, wide_rows), feature_indices(batch, wide_rows)], axis=1
    )
    indices = {
        "embedding": np.concatenate(embedding),
        "position": np.concatenate([position_indices(batch)[:, :_POSITION_ROWS].ravel(), level_indices()]),
        "wide": np.concatenate([ids.ravel(), cross_indices_per_level(batch, wide_rows).ravel()]),
        "slope": slope_indices(batch, wide_rows),
    }
    if cold_start:
        indices["pair"] = pair_indices(batch, wide_rows)
    return indices


def split_embeddings(batch: Batch, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings of `EmbeddingLayout`, and those of the query's clicks (items, then groups)."""
    rows = EmbeddingLayout.of(batch).rows
    return embedding[:rows], embedding[rows:]


def sum_linear_weights(batch: Batch, looked_up: Mapping[str, Tensor], centered_levels: Tensor) -> Tensor:
    """float32[N, 4]: the weights of position, level, ids, custom features, crosses, slopes and, if looked up, pairs.

    centered_levels: float32[4], levels 1 to 4 around their middle, the factors of a slope.
    """
    pages, impressions = batch.pages, batch.impressions
    page_of = torch.from_numpy(batch.page_of).to(centered_levels.device)
    position, level = torch.split(looked_up["position"][:, 0], [_POSITION_ROWS * impressions, LEVEL_COUNT])
    crosses_size = pages * _CROSSES * LEVEL_COUNT
    wide = looked_up["wide"]
    ids, crosses = torch.split(wide, [len(wide) - crosses_size, crosses_size])
    slope = looked_up["slope"].sum(dim=(1, 2)).unsqueeze(1) * centered_levels
    terms = (
        position.view(impressions, _POSITION_ROWS).sum(dim=1, keepdim=True)
        + level
        + sum_weights(weigh_features(ids.view(impressions, -1, 1), batch)).unsqueeze(1)
        + crosses.view(pages, _CROSSES, LEVEL_COUNT).sum(dim=1).index_select(0, page_of)
        + slope
    )
    return terms + looked_up["pair"] if "pair" in looked_up else terms
