"""The deep part: embeddings of ids, groups and history, with level, position and numbers, into an MLP."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import Indices
from prectr.model.features.hashing import row_indices
from prectr.model.features.smoothing import PRIOR_LOG_ODDS
from prectr.model.layers.flat_parameters import FlatParameters, ParameterSpec

_POSITIONS: Final = 20
_LEVELS: Final = 4
POSITION_FEATURES: Final = _POSITIONS + 1 + _LEVELS
_PAGE_FIELDS: Final = 3
_ITEM_FIELDS: Final = 4


def embedding_indices(batch: Batch, size: int) -> Indices:
    """int64[2·P + 4·N + 2·H]: user, query; item, category, brand, group; item and group of each past click."""
    history = batch.history
    return np.concatenate(
        [
            row_indices(batch.user, "user", size),
            row_indices(batch.query, "query", size),
            row_indices(batch.item, "item", size),
            row_indices(batch.category, "category", size),
            row_indices(batch.brand, "brand", size),
            row_indices(batch.group, "group", size),
            row_indices(history.item, "item", size),
            row_indices(history.group, "group", size),
        ]
    )


def position_features(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 25]: position (1 to 20, those beyond as 20) and level as one-hot, and ln(position).

    Where levels are inferred, their probabilities stand for the level; with text, e_q·e_i is a column more.
    """
    features = np.zeros((batch.impressions, POSITION_FEATURES), dtype=np.float32)
    impression = np.arange(batch.impressions)
    features[impression, np.minimum(batch.positions, _POSITIONS) - 1] = 1.0
    features[:, _POSITIONS : _POSITIONS + _LEVELS] = batch.level_weights
    features[:, -1] = np.log(batch.positions)
    if batch.similarity is None:
        return features
    return np.concatenate([features, batch.similarity[:, None].astype(np.float32)], axis=1)


@dataclass(frozen=True, slots=True)
class DeepComponent:
    """The shape of the network; its parameters live in the model's `DenseParameters`."""

    embedding_dim: int
    hidden: tuple[int, ...]
    numeric_columns: int
    """Columns of the numbers that join the embeddings, `place_numbers` among them."""
    outputs: int = 1
    """Logits of each impression."""

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """The parameters to make."""
        inputs = (_PAGE_FIELDS + _ITEM_FIELDS) * self.embedding_dim + self.numeric_columns
        shapes: dict[str, ParameterSpec] = {}
        for layer, outputs in enumerate(self.hidden):
            shapes[f"hidden{layer}.weight"] = ParameterSpec.he_uniform(inputs, outputs)
            shapes[f"hidden{layer}.bias"] = ParameterSpec.zeros(outputs)
            inputs = outputs
        shapes["out.weight"] = ParameterSpec.zeros(self.outputs, inputs)
        shapes["out.bias"] = ParameterSpec.constant(PRIOR_LOG_ODDS, self.outputs)
        return shapes

    def logits(self, batch: Batch, embedded: Tensor, numeric_features: Tensor, dense: FlatParameters) -> Tensor:
        """Logits float32[N, outputs]. embedded: what `embedding_rows` asked for, float32[2·P + 4·N + 2·H, dim]."""
        pages, impressions, clicks = batch.pages, batch.impressions, len(batch.history.item)
        user, query, item, category, brand, group, past_item, past_group = torch.split(
            embedded, [pages, pages, impressions, impressions, impressions, impressions, clicks, clicks]
        )
        history_mean = _mean_by_page(past_item + past_group, batch)
        page_of = torch.from_numpy(batch.page_of).to(embedded.device)
        page_features = torch.cat([user, query, history_mean], dim=1).index_select(0, page_of)
        layer = torch.cat([page_features, item, category, brand, group, numeric_features], dim=1)
        for index in range(len(self.hidden)):
            layer = torch.relu(
                torch.nn.functional.linear(layer, dense[f"hidden{index}.weight"], dense[f"hidden{index}.bias"])
            )
        return torch.nn.functional.linear(layer, dense["out.weight"], dense["out.bias"])


def _mean_by_page(click_embeddings: Tensor, batch: Batch) -> Tensor:
    """Mean over each page's past clicks, [P, dim]; zero where there are none."""
    page_of = batch.history.page_of
    counts = np.maximum(np.bincount(page_of, minlength=batch.pages), 1).astype(np.float32)
    sums = click_embeddings.new_zeros(batch.pages, click_embeddings.shape[1])
    sums = sums.index_add(0, torch.from_numpy(page_of).to(click_embeddings.device), click_embeddings)
    return sums / torch.from_numpy(counts).to(click_embeddings.device).unsqueeze(1)
