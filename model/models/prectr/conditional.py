"""P(click | level, x): four click models, one per relevance level, over shared features."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import Module

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.layers.linear import Linear
from prectr.model.layers.mlp import DeepComponent
from prectr.model.text.encoder.network import HIDDEN_SIZE
from prectr.state.aggregates import LEVEL_COUNT

TEXT_FEATURES: Final = 16
"""Columns of the projected text representation."""


@dataclass(frozen=True, slots=True)
class ConditionalInputs:
    """Inputs of the conditional log-odds other than the text; shared with the hard negatives.

    embedded: float32[rows, dim], in the order of `EmbeddingLayout`.
    position_features: float32[N, 21]. numeric_features: float32[N, any].
    linear_terms: float32[N, 4], the sum of all terms outside the network, incentive included.
    incentive: float32[N, 4], τ.
    exposure_features: float32[N, 5], or None without exposure.
    """

    embedded: Tensor
    position_features: Tensor
    numeric_features: Tensor
    linear_terms: Tensor
    incentive: Tensor
    exposure_features: Tensor | None


class ConditionalClickModel(Module):
    """Log-odds of a click given each level, from text, embeddings and numeric features.

    Args:
        config: settings of the trainer.
        numeric_columns: columns of position and other numeric features together.
        generator: source of the initial weights.
    """

    def __init__(self, config: TrainerConfig, numeric_columns: int, generator: Generator) -> None:
        super().__init__()
        self.deep = DeepComponent(
            config.embedding_dim, config.hidden, numeric_columns + TEXT_FEATURES, generator, outputs=LEVEL_COUNT
        )
        self.text = Linear(HIDDEN_SIZE, TEXT_FEATURES, generator, bound=HIDDEN_SIZE**-0.5, bias=0.0)

    def forward(self, batch: Batch, inputs: ConditionalInputs, pair_embedding: Tensor) -> Tensor:
        """Log-odds float32[N, 4] for text representations float32[N, 128]."""
        text = self.text(pair_embedding)
        features = torch.cat([inputs.position_features, torch.relu(text), inputs.numeric_features], dim=1)
        log_odds: Tensor = self.deep(batch, inputs.embedded, features) + inputs.linear_terms
        return log_odds
