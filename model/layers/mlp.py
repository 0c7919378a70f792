"""The deep component: embeddings of ids, groups, custom features and history, with numeric features, through an MLP."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import Module, ModuleList

from prectr.model.features.batch import Batch
from prectr.model.features.feature_slots import FeatureRows
from prectr.model.features.hashed_features import FEATURE_FIELD, Indices
from prectr.model.features.hashing import concatenated_row_indices
from prectr.model.features.smoothing import PRIOR_LOG_ODDS
from prectr.model.layers.linear import Linear, he_bound
from prectr.state.aggregates import LEVEL_COUNT

_POSITIONS: Final = 20
POSITION_ONE_HOT: Final = slice(0, _POSITIONS)
"""Columns of `position_features`: position 1 to 20 (those beyond count as 20),"""
LEVEL_WEIGHTS: Final = slice(_POSITIONS, _POSITIONS + LEVEL_COUNT)
"""relevance level,"""
LOG_POSITION: Final = slice(_POSITIONS + LEVEL_COUNT, _POSITIONS + LEVEL_COUNT + 1)
"""and ln(position)."""
POSITION_FEATURES: Final = LOG_POSITION.stop
_PAGE_FIELDS: Final = 3
_ITEM_FIELDS: Final = 4


def embedding_indices(batch: Batch, size: int) -> Indices:
    """int64[rows]: the rows of the embedding table, in the order of `EmbeddingLayout`."""
    history = batch.history
    return concatenated_row_indices(
        [
            ("user", batch.user),
            ("query", batch.query),
            ("item", batch.item),
            ("category", batch.category),
            ("brand", batch.brand),
            ("group", batch.group),
            ("item", history.item),
            ("group", history.group),
            (FEATURE_FIELD, batch.item_features.hashes.ravel()),
            (FEATURE_FIELD, batch.page_features.hashes.ravel()),
        ],
        size,
    )


@dataclass(frozen=True, slots=True)
class EmbeddingLayout:
    """Which rows of the looked-up embeddings belong to which field.

    sizes: rows of user, query; item, category, brand, group; item and group of each of H past clicks; K custom
        features of each item, and L of each page.
    """

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, batch: Batch) -> "EmbeddingLayout":
        """The layout of `embedding_indices(batch, …)`."""
        pages, impressions, clicks = batch.pages, batch.impressions, len(batch.history.item)
        features = batch.item_features.hashes.size, batch.page_features.hashes.size
        return cls((pages, pages, impressions, impressions, impressions, impressions, clicks, clicks, *features))

    @property
    def rows(self) -> int:
        """(2 + L)·P + (4 + K)·N + 2·H."""
        return sum(self.sizes)

    @property
    def query(self) -> slice:
        """Of the pages' queries."""
        return self._slice(1)

    @property
    def past_item(self) -> slice:
        """Of the items of past clicks."""
        return self._slice(6)

    @property
    def past_group(self) -> slice:
        """Of the groups of past clicks."""
        return self._slice(7)

    def _slice(self, field: int) -> slice:
        start = sum(self.sizes[:field])
        return slice(start, start + self.sizes[field])


def position_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 25]: position and level as one-hot, and ln(position).

    Where levels are inferred, their probabilities take the place of the one-hot level. With text features, a last
    column is e_q·e_i: float32[N, 26].
    """
    features = np.zeros((batch.impressions, POSITION_FEATURES), dtype=np.float32)
    impression = np.arange(batch.impressions)
    features[impression, np.minimum(batch.positions, _POSITIONS) - 1] = 1.0
    features[:, LEVEL_WEIGHTS] = batch.level_weights
    features[:, LOG_POSITION] = np.log(batch.positions)[:, None]
    if batch.similarity is None:
        return features
    return np.concatenate([features, batch.similarity[:, None].astype(np.float32)], axis=1)


class DeepComponent(Module):
    """The MLP over embeddings and numeric features.

    Args:
        embedding_dim: columns of the embedding table.
        hidden: widths of the hidden layers.
        numeric_columns: columns of the numeric features that join the embeddings.
        generator: source of the initial weights.
        outputs: logits of each impression.
    """

    def __init__(
        self, embedding_dim: int, hidden: Sequence[int], numeric_columns: int, generator: Generator, outputs: int = 1
    ) -> None:
        super().__init__()
        widths = [(_PAGE_FIELDS + _ITEM_FIELDS) * embedding_dim + numeric_columns, *hidden]
        self.hidden = ModuleList(
            Linear(inputs, width, generator, bound=he_bound(inputs), bias=0.0) for inputs, width in pairwise(widths)
        )
        self.out = Linear(widths[-1], outputs, generator, bias=PRIOR_LOG_ODDS)

    def forward(self, batch: Batch, embedded: Tensor, numeric_features: Tensor) -> Tensor:
        """Logits float32[N, outputs].

        Args:
            batch: the batch of P pages and N impressions.
            embedded: float32[rows, dim], the rows of `embedding_indices`.
            numeric_features: float32[N, numeric_columns].
        """
        user, query, item, category, brand, group, past_item, past_group, of_item, of_page = torch.split(
            embedded, list(EmbeddingLayout.of(batch).sizes)
        )
        item = _add_features(item, of_item, batch.item_features)
        query = _add_features(query, of_page, batch.page_features)
        history_mean = _mean_by_page(past_item + past_group, batch)
        page_of = torch.from_numpy(batch.page_of).to(embedded.device)
        page_features = torch.cat([user, query, history_mean], dim=1).index_select(0, page_of)
        layer = torch.cat([page_features, item, category, brand, group, numeric_features], dim=1)
        for hidden in self.hidden:
            layer = torch.relu(hidden(layer))
        logits: Tensor = self.out(layer)
        return logits


def _add_features(embedding: Tensor, feature_embeddings: Tensor, features: FeatureRows) -> Tensor:
    """An item or a query and its custom features: the sum of their embeddings, float32[R, dim] (Kula 2015, LightFM)."""
    if not features.weights.size:
        return embedding
    weights = torch.from_numpy(features.weights).to(embedding.device)
    weighted = feature_embeddings.view(*weights.shape, embedding.shape[1]) * weights.unsqueeze(2)
    return embedding + weighted.sum(dim=1)


def _mean_by_page(click_embeddings: Tensor, batch: Batch) -> Tensor:
    """Mean over each page's past clicks, float32[P, dim]; zero where there are none."""
    page_of = batch.history.page_of
    counts = np.maximum(np.bincount(page_of, minlength=batch.pages), 1).astype(np.float32)
    sums = click_embeddings.new_zeros(batch.pages, click_embeddings.shape[1])
    sums = sums.index_add(0, torch.from_numpy(page_of).to(click_embeddings.device), click_embeddings)
    return sums / torch.from_numpy(counts).to(click_embeddings.device).unsqueeze(1)
