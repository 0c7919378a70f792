"""Relevance preference: attention of a page's query over past clicks, joined with click-rate features."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.nn.functional import one_hot

from prectr.model.features.batch import Batch, Floats, Ints
from prectr.model.layers.attention import attend
from prectr.model.layers.linear import Linear, he_bound
from prectr.state.aggregates import LEVEL_COUNT

PREFERENCE_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Clicks:
    """Past clicks that the pages of a batch attend to, page after page.

    embedded: float32[C, dim], of the clicked items. page_of: int64[C]. level: int64[C], 1 to 4.
    age_days: float64[C]. query_overlap: float64[C], similarity of the click's query and the page's.
    """

    embedded: Tensor
    page_of: Ints
    level: Ints
    age_days: Floats
    query_overlap: Floats


class PreferenceAttention(Module):
    """r float32[N, 16]: attention over clicks, per page, then a linear map with features of each impression.

    Args:
        embedding_dim: columns of the embeddings.
        aggregate_columns: columns of the features.
        heads: of the attention; age and overlap of a click each add a learned bias per head to its score.
        generator: source of the initial weights.
    """

    def __init__(self, embedding_dim: int, aggregate_columns: int, heads: int, generator: Generator) -> None:
        super().__init__()
        size, bound = PREFERENCE_SIZE, he_bound(embedding_dim)
        self.query = Linear(embedding_dim, size, generator, bound=bound)
        self.key = Linear(embedding_dim, size, generator, bound=bound)
        self.value = Linear(embedding_dim + LEVEL_COUNT, size, generator, bound=he_bound(embedding_dim + LEVEL_COUNT))
        self.age = Linear(1, heads, generator)
        self.overlap = Linear(1, heads, generator, center=1.0)
        self.out = Linear(size + aggregate_columns, size, generator, bound=he_bound(size + aggregate_columns))
        self.heads = heads

    def forward(self, batch: Batch, query: Tensor, clicks: Clicks, aggregate_features: Tensor) -> Tensor:
        """r of each impression; query: float32[P, dim], aggregate_features: float32[N, aggregate_columns]."""
        device = query.device
        levels = one_hot(torch.from_numpy(clicks.level - 1).to(device), LEVEL_COUNT).float()
        log_age = torch.from_numpy(np.log1p(np.maximum(clicks.age_days, 0.0)).astype(np.float32)).to(device)
        overlap = torch.from_numpy(clicks.query_overlap.astype(np.float32)).to(device)
        bias = self.age(log_age.unsqueeze(1)) + self.overlap(overlap.unsqueeze(1))
        attended = attend(
            self.query(query),
            self.key(clicks.embedded),
            self.value(torch.cat([clicks.embedded, levels], dim=1)),
            bias,
            torch.from_numpy(clicks.page_of).to(device),
            self.heads,
        )
        by_impression = attended.index_select(0, torch.from_numpy(batch.page_of).to(device))
        preference: Tensor = self.out(torch.cat([by_impression, aggregate_features], dim=1))
        return preference
