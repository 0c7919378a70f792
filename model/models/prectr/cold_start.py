"""Cold-start mining (PRECTR-V2 2026): for users with few clicks, preferences come from all users of the query.

The activity gate and the attention in this form are a reconstruction.
"""

from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Module

from prectr.model.features.batch import Batch
from prectr.model.layers.linear import Linear
from prectr.model.models.prectr.preference import Clicks, PreferenceAttention

_GLOBAL_HEADS: Final = 2
_GATE_FEATURES: Final = 3
_LOG_SCALE: Final = 0.3
"""Scales logarithms of counts to the size of the other features."""


class ColdStartMining(Module):
    """Blends r_user with r_global, multi-head attention over the query's last clicks by all users.

    Args:
        embedding_dim: columns of the embeddings.
        aggregate_columns: columns of the query's aggregate features; 0 without aggregates.
        generator: source of the initial weights.
    """

    def __init__(self, embedding_dim: int, aggregate_columns: int, generator: Generator) -> None:
        super().__init__()
        self.attention = PreferenceAttention(embedding_dim, aggregate_columns, _GLOBAL_HEADS, generator)
        self.gate = Linear(_GATE_FEATURES, 1, generator, bias=0.0)

    def forward(
        self, batch: Batch, query: Tensor, clicks: Clicks, query_features: Tensor, user_preference: Tensor
    ) -> Tensor:
        """r = g·r_user + (1 − g)·r_global, float32[N, 16].

        Args:
            batch: the batch of P pages and N impressions.
            query: float32[P, dim], embeddings of the pages' queries.
            clicks: the last clicks of all users for the queries.
            query_features: float32[N, aggregate_columns].
            user_preference: float32[N, 16], r_user.
        """
        global_preference = self.attention(batch, query, clicks, query_features)
        gate = self.activity_gate(batch)
        preference: Tensor = gate * user_preference + (1 - gate) * global_preference
        return preference

    def activity_gate(self, batch: Batch) -> Tensor:
        """g float32[N, 1], the weight of r_user: from the user's clicks and the impressions of user and query."""
        rates = batch.rates
        log_counts = np.stack(
            [
                np.log1p(batch.user_activity)[batch.page_of],
                np.log1p(rates.user_impressions.sum(axis=1)),
                np.log1p(rates.query_impressions.sum(axis=1)),
            ],
            axis=1,
        )
        features = torch.from_numpy((log_counts * _LOG_SCALE).astype(np.float32)).to(self.gate.weight.device)
        return torch.sigmoid(self.gate(features))
