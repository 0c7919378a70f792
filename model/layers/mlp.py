"""The deep part: embeddings of ids, groups and history, with level, position and numbers, into an MLP."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import Rows
from prectr.model.features.hashing import rows
from prectr.model.features.smoothing import PRIOR_LOG_ODDS
from prectr.model.layers.flat_parameters import DenseParameters, Shape

_POSITIONS: Final = 20
_LEVELS: Final = 4
PLACE_NUMBERS: Final = _POSITIONS + 1 + _LEVELS
_PAGE_FIELDS: Final = 3
_ITEM_FIELDS: Final = 4


def embedding_rows(batch: Batch, size: int) -> Rows:
    """int64[2·P + 4·N + 2·H]: user, query; item, category, brand, group; item and group of each past click."""
    history = batch.history
    return np.concatenate(
        [
            rows(batch.user, "user", size),
            rows(batch.query, "query", size),
            rows(batch.item, "item", size),
            rows(batch.category, "category", size),
            rows(batch.brand, "brand", size),
            rows(batch.group, "group", size),
            rows(history.item, "item", size),
            rows(history.group, "group", size),
        ]
    )


def place_numbers(batch: Batch) -> NDArray[np.float32]:
    """float32[N, 25]: position (1 to 20, those beyond as 20) and level as one-hot, and ln(position).

    Where levels are inferred, their probabilities stand for the level; with text, e_q·e_i is a column more.
    """
    numbers = np.zeros((batch.impressions, PLACE_NUMBERS), dtype=np.float32)
    each = np.arange(batch.impressions)
    numbers[each, np.minimum(batch.positions, _POSITIONS) - 1] = 1.0
    numbers[:, _POSITIONS : _POSITIONS + _LEVELS] = batch.level_weights
    numbers[:, -1] = np.log(batch.positions)
    if batch.similarity is None:
        return numbers
    return np.concatenate([numbers, batch.similarity[:, None].astype(np.float32)], axis=1)


@dataclass(frozen=True, slots=True)
class DeepPart:
    """The shape of the network; its parameters live in the model's `DenseParameters`."""

    dim: int
    hidden: tuple[int, ...]
    numbers: int
    """Columns of the numbers that join the embeddings, `place_numbers` among them."""
    outputs: int = 1
    """Logits of each impression."""

    def shapes(self) -> dict[str, Shape]:
        """The parameters to make."""
        inputs = (_PAGE_FIELDS + _ITEM_FIELDS) * self.dim + self.numbers
        shapes: dict[str, Shape] = {}
        for layer, outputs in enumerate(self.hidden):
            shapes[f"hidden{layer}.weight"] = Shape.linear(inputs, outputs)
            shapes[f"hidden{layer}.bias"] = Shape.zeros(outputs)
            inputs = outputs
        shapes["out.weight"] = Shape.zeros(self.outputs, inputs)
        shapes["out.bias"] = Shape.constant(PRIOR_LOG_ODDS, self.outputs)
        return shapes

    def logits(self, batch: Batch, embedded: Tensor, numbers: Tensor, dense: DenseParameters) -> Tensor:
        """Logits float32[N, outputs]. embedded: what `embedding_rows` asked for, float32[2·P + 4·N + 2·H, dim]."""
        pages, impressions, clicks = batch.pages, batch.impressions, len(batch.history.item)
        user, query, item, category, brand, group, past_item, past_group = torch.split(
            embedded, [pages, pages, impressions, impressions, impressions, impressions, clicks, clicks]
        )
        past = _mean_by_page(past_item + past_group, batch)
        page_of = torch.from_numpy(batch.page_of).to(embedded.device)
        of_page = torch.cat([user, query, past], dim=1).index_select(0, page_of)
        layer = torch.cat([of_page, item, category, brand, group, numbers], dim=1)
        for number in range(len(self.hidden)):
            layer = torch.relu(
                torch.nn.functional.linear(layer, dense[f"hidden{number}.weight"], dense[f"hidden{number}.bias"])
            )
        return torch.nn.functional.linear(layer, dense["out.weight"], dense["out.bias"])


def _mean_by_page(of_click: Tensor, batch: Batch) -> Tensor:
    """Mean over each page's past clicks, [P, dim]; zero where there are none."""
    page_of = batch.history.page_of
    counts = np.maximum(np.bincount(page_of, minlength=batch.pages), 1).astype(np.float32)
    sums = of_click.new_zeros(batch.pages, of_click.shape[1])
    sums = sums.index_add(0, torch.from_numpy(page_of).to(of_click.device), of_click)
    return sums / torch.from_numpy(counts).to(of_click.device).unsqueeze(1)
