"""Personalized relevance incentive: how much relevance moves this user, from own clicks and those of all others.

r_user is what the user's own past clicks for similar queries say (PRECTR 2025); r_global what the last clicks of all
users for the query say, for users of whom little is known (cold-start mining, PRECTR-V2 2026). An activity gate mixes
them, and positive and negative experts turn the mixture into τ, a change of the log-odds of a click at each level.
The papers give the parts; attention, gate and experts in this form are a reconstruction.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch, Floats, Ints
from prectr.model.features.smoothing import LEVELS
from prectr.model.layers.attention import attend
from prectr.model.layers.flat_parameters import FlatParameters, ParameterSpec

_WIDTH: Final = 16
_HEADS: Final = 2
_GATE_FEATURES: Final = 3
_LOG_SCALE: Final = 0.3


@dataclass(frozen=True, slots=True)
class RelevanceIncentive:
    """The shape of the part; its parameters live in the model's `DenseParameters` under `incentive.`.

    dim: columns of the embeddings. numbers: columns of what the aggregates say of the user, and of the query; 0
    without aggregates. cold_start: whether there is an r_global.
    """

    embedding_dim: int
    aggregate_columns: int
    cold_start: bool

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """The parameters to make."""
        shapes = self._attention_specs("user", 1)
        if self.cold_start:
            shapes |= self._attention_specs("global", _HEADS)
            shapes |= {
                "incentive.gate": ParameterSpec.zeros(1, _GATE_FEATURES),
                "incentive.gate.bias": ParameterSpec.zeros(1),
            }
        for expert in ("positive", "negative"):
            shapes[f"incentive.{expert}"] = ParameterSpec.zeros(LEVELS, _WIDTH)
            shapes[f"incentive.{expert}.bias"] = ParameterSpec.zeros(LEVELS)
        shapes["incentive.mixture"] = ParameterSpec.zeros(2, _WIDTH)
        return shapes

    def _attention_specs(self, scope: str, heads: int) -> dict[str, ParameterSpec]:
        return {
            f"incentive.{scope}.query": ParameterSpec.he_uniform(self.embedding_dim, _WIDTH),
            f"incentive.{scope}.key": ParameterSpec.he_uniform(self.embedding_dim, _WIDTH),
            f"incentive.{scope}.value": ParameterSpec.he_uniform(self.embedding_dim + LEVELS, _WIDTH),
            f"incentive.{scope}.age": ParameterSpec.zeros(heads, 1),
            f"incentive.{scope}.overlap": ParameterSpec.constant(1.0, heads, 1),
            f"incentive.{scope}.out": ParameterSpec.he_uniform(_WIDTH + self.aggregate_columns, _WIDTH),
        }

    def user_preference(
        self, batch: Batch, query: Tensor, clicked: Tensor, aggregate_features: Tensor, dense: FlatParameters
    ) -> Tensor:
        """r_user float32[N, 16]: attention of the page's query over the user's past clicks.

        query: float32[P, dim]. clicked: float32[H, dim], of the items clicked. numbers: float32[N, numbers].
        """
        history = batch.history
        attended = self._attend(
            "user", query, clicked, history.level, history.page_of, history.age_days, history.query_overlap, dense
        )
        return self._to_impressions("user", attended, batch, aggregate_features, dense)

    def global_preference(
        self, batch: Batch, query: Tensor, clicked: Tensor, aggregate_features: Tensor, dense: FlatParameters
    ) -> Tensor:
        """r_global float32[N, 16]: multi-head attention over the last clicks of all users for the page's query.

        query: float32[P, dim]. clicked: float32[C, dim], of the items clicked. numbers: float32[N, numbers].
        """
        history = batch.query_history
        no_overlap = np.zeros(len(history.item))
        attended = self._attend(
            "global", query, clicked, history.level, history.page_of, history.age_days, no_overlap, dense
        )
        return self._to_impressions("global", attended, batch, aggregate_features, dense)

    def gate(self, batch: Batch, dense: FlatParameters) -> Tensor:
        """How far the user's own preference is listened to, float32[N, 1], from what is known of user and query."""
        rates = batch.rates
        log_counts = np.stack(
            [
                np.log1p(batch.user_activity)[batch.page_of],
                np.log1p(rates.user_impressions.sum(axis=1)),
                np.log1p(rates.query_impressions.sum(axis=1)),
            ],
            axis=1,
        )
        gate_features = torch.from_numpy((log_counts * _LOG_SCALE).astype(np.float32)).to(
            dense["incentive.gate"].device
        )
        return torch.sigmoid(
            torch.nn.functional.linear(gate_features, dense["incentive.gate"], dense["incentive.gate.bias"])
        )

    def log_odds(self, preference: Tensor, dense: FlatParameters) -> Tensor:
        """τ float32[N, 4] = m₊·softplus(f₊(r)) − m₋·softplus(f₋(r)), m the softmax of the mixture's weights."""
        positive, negative = (
            torch.nn.functional.softplus(
                torch.nn.functional.linear(preference, dense[f"incentive.{name}"], dense[f"incentive.{name}.bias"])
            )
            for name in ("positive", "negative")
        )
        mixture = torch.softmax(torch.nn.functional.linear(preference, dense["incentive.mixture"]), dim=1)
        return mixture[:, :1] * positive - mixture[:, 1:] * negative

    def _attend(
        self,
        scope: str,
        query: Tensor,
        clicked: Tensor,
        level: Ints,
        page_of: Ints,
        age: Floats,
        overlap: Floats,
        dense: FlatParameters,
    ) -> Tensor:
        """float32[P, 16]."""
        device = query.device
        levels = torch.nn.functional.one_hot(torch.from_numpy(level - 1).to(device), LEVELS).float()
        log_age = torch.from_numpy(np.log1p(np.maximum(age, 0.0)).astype(np.float32)).to(device).unsqueeze(1)
        query_overlap = torch.from_numpy(overlap.astype(np.float32)).to(device).unsqueeze(1)
        bias = torch.nn.functional.linear(log_age, dense[f"incentive.{scope}.age"])
        bias = bias + torch.nn.functional.linear(query_overlap, dense[f"incentive.{scope}.overlap"])
        return attend(
            torch.nn.functional.linear(query, dense[f"incentive.{scope}.query"]),
            torch.nn.functional.linear(clicked, dense[f"incentive.{scope}.key"]),
            torch.nn.functional.linear(torch.cat([clicked, levels], dim=1), dense[f"incentive.{scope}.value"]),
            bias,
            torch.from_numpy(page_of).to(device),
            bias.shape[1],
        )

    def _to_impressions(
        self, scope: str, attended: Tensor, batch: Batch, aggregate_features: Tensor, dense: FlatParameters
    ) -> Tensor:
        attended_by_impression = attended.index_select(0, torch.from_numpy(batch.page_of).to(attended.device))
        return torch.nn.functional.linear(
            torch.cat([attended_by_impression, aggregate_features], dim=1), dense[f"incentive.{scope}.out"]
        )
