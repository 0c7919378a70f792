"""Personalised relevance incentive: how strongly relevance drives the clicks of this user.

r_user comes from the user's own past clicks for similar queries (PRECTR 2025); cold-start mining blends in r_global,
from the last clicks of all users (PRECTR-V2 2026). Positive and negative experts turn the result into τ, a change
of the log-odds of a click at each level. The papers name the parts; attention and experts in this form are a
reconstruction.
"""

from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.nn.functional import softplus

from prectr.model.features.batch import Batch
from prectr.model.layers.linear import Linear
from prectr.model.models.prectr.cold_start import ColdStartMining
from prectr.model.models.prectr.preference import PREFERENCE_SIZE, Clicks, PreferenceAttention
from prectr.state.aggregates import LEVEL_COUNT

_USER_HEADS: Final = 1
_EXPERTS: Final = 2


class RelevanceIncentive(Module):
    """τ from the clicks of the user and, with cold-start mining, of all users.

    Args:
        embedding_dim: columns of the embeddings.
        aggregate_columns: columns of the aggregate features of the user, and of the query; 0 without aggregates.
        cold_start: whether r_global takes part.
        generator: source of the initial weights.
    """

    def __init__(self, embedding_dim: int, aggregate_columns: int, cold_start: bool, generator: Generator) -> None:
        super().__init__()
        self.user = PreferenceAttention(embedding_dim, aggregate_columns, _USER_HEADS, generator)
        self.cold_start = ColdStartMining(embedding_dim, aggregate_columns, generator) if cold_start else None
        self.positive = Linear(PREFERENCE_SIZE, LEVEL_COUNT, generator, bias=0.0)
        self.negative = Linear(PREFERENCE_SIZE, LEVEL_COUNT, generator, bias=0.0)
        self.mixture = Linear(PREFERENCE_SIZE, _EXPERTS, generator)

    def forward(
        self,
        batch: Batch,
        query: Tensor,
        user_clicks: Clicks,
        query_clicks: Clicks | None,
        user_features: Tensor,
        query_features: Tensor,
    ) -> Tensor:
        """τ float32[N, 4].

        Args:
            batch: the batch of P pages and N impressions.
            query: float32[P, dim], embeddings of the pages' queries.
            user_clicks: the users' past clicks.
            query_clicks: the last clicks of all users for the queries; read with cold-start mining only.
            user_features: float32[N, aggregate_columns].
            query_features: float32[N, aggregate_columns].
        """
        preference = self.user(batch, query, user_clicks, user_features)
        if self.cold_start is not None and query_clicks is not None:
            preference = self.cold_start(batch, query, query_clicks, query_features, preference)
        return self.log_odds(preference)

    def log_odds(self, preference: Tensor) -> Tensor:
        """τ = m₊·softplus(f₊(r)) − m₋·softplus(f₋(r)), m = softmax of the mixture; r float32[N, 16]."""
        positive, negative = softplus(self.positive(preference)), softplus(self.negative(preference))
        mixture = torch.softmax(self.mixture(preference), dim=1)
        return mixture[:, :1] * positive - mixture[:, 1:] * negative
