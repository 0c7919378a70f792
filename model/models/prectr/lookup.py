"""Which rows of the hashed tables `prectr` reads, and how the looked-up rows are laid out."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.aggregate_features import CENTERED_LEVELS
from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import (
    Indices,
    cross_indices_per_level,
    group_indices,
    id_indices,
    level_indices,
    pair_indices,
    position_indices,
    slope_indices,
)
from prectr.model.features.hashing import row_indices
from prectr.model.features.smoothing import LEVELS
from prectr.model.layers.mlp import EmbeddingLayout, embedding_indices

_IDS: Final = 6
"""Linear weights per impression: user, query, item; category, brand, group."""
_POSITION_ROWS: Final = 2
"""Bias and position; the level is what the mixture is over."""
_CROSSES: Final = 2
"""Query × level and user × level."""


def lookup_indices(batch: Batch, embedding_rows: int, wide_rows: int, *, cold_start: bool) -> dict[str, Indices]:
    """Rows by table; cold_start: also the query's last clicks and the pairs query × item.

    embedding: int64[2·P + 4·N + 2·H (+ 2·C)]. position: int64[2·N + 4]. wide: int64[6·N + 8·P]. slope: int64[N, 2].
    pair: int64[N].
    """
    embedding = [embedding_indices(batch, embedding_rows)]
    if cold_start:
        clicks = batch.query_history
        embedding += [
            row_indices(clicks.item, "item", embedding_rows),
            row_indices(clicks.group, "group", embedding_rows),
        ]
    ids = np.concatenate([id_indices(batch, wide_rows), group_indices(batch, wide_rows)], axis=1)
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


def sum_linear_weights(batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
    """float32[N, 4]: the weights of position, level, ids, crosses, slopes and, if looked up, pairs."""
    pages, impressions = batch.pages, batch.impressions
    device = looked_up["wide"].device
    page_of = torch.from_numpy(batch.page_of).to(device)
    centered_levels = torch.from_numpy(CENTERED_LEVELS.astype(np.float32)).to(device)
    position, level = torch.split(looked_up["position"][:, 0], [_POSITION_ROWS * impressions, LEVELS])
    ids, crosses = torch.split(looked_up["wide"][:, 0], [_IDS * impressions, pages * _CROSSES * LEVELS])
    slope = looked_up["slope"].sum(dim=(1, 2)).unsqueeze(1) * centered_levels
    terms = (
        position.view(impressions, _POSITION_ROWS).sum(dim=1, keepdim=True)
        + level
        + ids.view(impressions, _IDS).sum(dim=1, keepdim=True)
        + crosses.view(pages, _CROSSES, LEVELS).sum(dim=1).index_select(0, page_of)
        + slope
    )
    return terms + looked_up["pair"] if "pair" in looked_up else terms
