"""`dnn`: embeddings of ids, group features and history, level and position, through an MLP.

Position and level have output biases of their own as well: an MLP alone needs hundreds of pages to learn their
effect, and every page of a stream is measured from the first on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import Indices, position_indices, position_table, sum_weights
from prectr.model.layers.hashed_embedding import HashedEmbedding
from prectr.model.layers.mlp import POSITION_FEATURES, DeepComponent, embedding_indices, position_features
from prectr.model.layers.sparse_optimizers import Adagrad
from prectr.model.models.neural import NeuralModel


class DeepNetwork(NeuralModel):
    """The deep component plus the biases of position and level."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        super().__init__(
            {"embedding": embedding_table(config, device), "position": position_table(config, device)}, device
        )
        self._size = config.embedding_rows
        generator = torch.Generator().manual_seed(config.seed)
        self.deep = DeepComponent(config.embedding_dim, config.hidden, POSITION_FEATURES + config.reads_text, generator)
        self.flatten_parameters(config.dense_lr)

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """Rows of the embeddings, and int64[N, 3] of position and level."""
        return {"embedding": embedding_indices(batch, self._size), "position": position_indices(batch)}

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        deep: Tensor = self.deep(batch, looked_up["embedding"], self.tensor(position_features(batch))).squeeze(1)
        return deep + sum_weights(looked_up["position"])


def embedding_table(config: TrainerConfig, device: torch.device) -> HashedEmbedding:
    """Make the hashed embedding table that all ids share."""
    return HashedEmbedding(
        config.embedding_rows,
        config.embedding_dim,
        Adagrad(config.embedding_lr),
        seed=config.seed,
        scale=config.embedding_scale,
        device=device,
    )
