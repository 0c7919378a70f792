"""`dnn`: embeddings of ids, group features and history, level and position, through an MLP.

Position and level have output biases of their own besides: a network alone takes hundreds of pages to find
what they mean, and every page of a stream is measured from the first on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import Indices, position_indices, position_table, sum_weights
from prectr.model.layers.flat_parameters import FlatParameters
from prectr.model.layers.hashed_embedding import Adagrad, HashedEmbedding
from prectr.model.layers.mlp import POSITION_FEATURES, DeepComponent, embedding_indices, position_features
from prectr.model.models.neural import NeuralModel


class DeepNetwork(NeuralModel):
    """The deep part and the biases of the place."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._deep = DeepComponent(config.embedding_dim, config.hidden, POSITION_FEATURES + config.reads_text)
        self._size = config.embedding_rows
        super().__init__(
            {"embedding": embedding_table(config, device), "place": position_table(config, device)},
            FlatParameters(self._deep.parameter_specs(), lr=config.dense_lr, seed=config.seed, device=device),
            device,
        )

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """Rows of the embeddings, and int64[N, 3] of the place."""
        return {"embedding": embedding_indices(batch, self._size), "place": position_indices(batch)}

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        deep = self._deep.logits(
            batch, looked_up["embedding"], self.tensor(position_features(batch)), self._dense
        ).squeeze(1)
        return deep + sum_weights(looked_up["place"])


def embedding_table(config: TrainerConfig, device: torch.device) -> HashedEmbedding:
    """The hashed embedding table that all ids share."""
    return HashedEmbedding(
        config.embedding_rows,
        config.embedding_dim,
        Adagrad(config.embedding_lr),
        seed=config.seed,
        scale=config.embedding_scale,
        device=device,
    )
