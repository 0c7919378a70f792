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
from prectr.model.layers.flat_parameters import DenseParameters, Shape

_WIDTH: Final = 16
_HEADS: Final = 2
_GATE_NUMBERS: Final = 3
_LOG_SCALE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Incentive:
    """The shape of the part; its parameters live in the model's `DenseParameters` under `incentive.`.

    dim: columns of the embeddings. numbers: columns of what the aggregates say of the user, and of the query; 0
    without aggregates. cold_start: whether there is an r_global.
    """

    dim: int
    numbers: int
    cold_start: bool

    def shapes(self) -> dict[str, Shape]:
        """The parameters to make."""
        shapes = self._attention("user", 1)
        if self.cold_start:
            shapes |= self._attention("global", _HEADS)
            shapes |= {"incentive.gate": Shape.zeros(1, _GATE_NUMBERS), "incentive.gate.bias": Shape.zeros(1)}
        for expert in ("positive", "negative"):
            shapes[f"incentive.{expert}"] = Shape.zeros(LEVELS, _WIDTH)
            shapes[f"incentive.{expert}.bias"] = Shape.zeros(LEVELS)
        shapes["incentive.mixture"] = Shape.zeros(2, _WIDTH)
        return shapes

    def _attention(self, of: str, heads: int) -> dict[str, Shape]:
        return {
            f"incentive.{of}.query": Shape.linear(self.dim, _WIDTH),
            f"incentive.{of}.key": Shape.linear(self.dim, _WIDTH),
            f"incentive.{of}.value": Shape.linear(self.dim + LEVELS, _WIDTH),
            f"incentive.{of}.age": Shape.zeros(heads, 1),
            f"incentive.{of}.overlap": Shape.constant(1.0, heads, 1),
            f"incentive.{of}.out": Shape.linear(_WIDTH + self.numbers, _WIDTH),
        }

    def of_user(self, batch: Batch, query: Tensor, clicked: Tensor, numbers: Tensor, dense: DenseParameters) -> Tensor:
        """r_user float32[N, 16]: attention of the page's query over the user's past clicks.

        query: float32[P, dim]. clicked: float32[H, dim], of the items clicked. numbers: float32[N, numbers].
        """
        history = batch.history
        said = self._heard("user", query, clicked, history.level, history.page_of, history.age, history.overlap, dense)
        return self._joined("user", said, batch, numbers, dense)

    def of_all(self, batch: Batch, query: Tensor, clicked: Tensor, numbers: Tensor, dense: DenseParameters) -> Tensor:
        """r_global float32[N, 16]: multi-head attention over the last clicks of all users for the page's query.

        query: float32[P, dim]. clicked: float32[C, dim], of the items clicked. numbers: float32[N, numbers].
        """
        history = batch.query_history
        same = np.zeros(len(history.item))
        said = self._heard("global", query, clicked, history.level, history.page_of, history.age, same, dense)
        return self._joined("global", said, batch, numbers, dense)

    def user_share(self, batch: Batch, dense: DenseParameters) -> Tensor:
        """How far the user's own preference is listened to, float32[N, 1], from what is known of user and query."""
        rates = batch.rates
        known = np.stack(
            [
                np.log1p(batch.activity)[batch.page_of],
                np.log1p(rates.user_impressions.sum(axis=1)),
                np.log1p(rates.query_impressions.sum(axis=1)),
            ],
            axis=1,
        )
        gate = torch.from_numpy((known * _LOG_SCALE).astype(np.float32)).to(dense["incentive.gate"].device)
        return torch.sigmoid(torch.nn.functional.linear(gate, dense["incentive.gate"], dense["incentive.gate.bias"]))

    def tau(self, preference: Tensor, dense: DenseParameters) -> Tensor:
        """τ float32[N, 4] = m₊·softplus(f₊(r)) − m₋·softplus(f₋(r)), m the softmax of the mixture's weights."""
        positive, negative = (
            torch.nn.functional.softplus(
                torch.nn.functional.linear(preference, dense[f"incentive.{name}"], dense[f"incentive.{name}.bias"])
            )
            for name in ("positive", "negative")
        )
        mixture = torch.softmax(torch.nn.functional.linear(preference, dense["incentive.mixture"]), dim=1)
        return mixture[:, :1] * positive - mixture[:, 1:] * negative

    def _heard(
        self,
        of: str,
        query: Tensor,
        clicked: Tensor,
        level: Ints,
        page_of: Ints,
        age: Floats,
        overlap: Floats,
        dense: DenseParameters,
    ) -> Tensor:
        """float32[P, 16]."""
        device = query.device
        levels = torch.nn.functional.one_hot(torch.from_numpy(level - 1).to(device), LEVELS).float()
        since = torch.from_numpy(np.log1p(np.maximum(age, 0.0)).astype(np.float32)).to(device).unsqueeze(1)
        alike = torch.from_numpy(overlap.astype(np.float32)).to(device).unsqueeze(1)
        bias = torch.nn.functional.linear(since, dense[f"incentive.{of}.age"])
        bias = bias + torch.nn.functional.linear(alike, dense[f"incentive.{of}.overlap"])
        return attend(
            torch.nn.functional.linear(query, dense[f"incentive.{of}.query"]),
            torch.nn.functional.linear(clicked, dense[f"incentive.{of}.key"]),
            torch.nn.functional.linear(torch.cat([clicked, levels], dim=1), dense[f"incentive.{of}.value"]),
            bias,
            torch.from_numpy(page_of).to(device),
            bias.shape[1],
        )

    def _joined(self, of: str, said: Tensor, batch: Batch, numbers: Tensor, dense: DenseParameters) -> Tensor:
        of_impression = said.index_select(0, torch.from_numpy(batch.page_of).to(said.device))
        return torch.nn.functional.linear(torch.cat([of_impression, numbers], dim=1), dense[f"incentive.{of}.out"])
