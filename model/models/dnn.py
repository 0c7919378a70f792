"""`dnn`: embeddings of ids, group features and history, level and position, through an MLP.

Position and level have output biases of their own besides: a network alone takes hundreds of pages to find
what they mean, and every page of a stream is measured from the first on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import Rows, linear, place_rows, place_table
from prectr.model.layers.flat_parameters import DenseParameters
from prectr.model.layers.hashed_embedding import Adagrad, HashedTable
from prectr.model.layers.mlp import PLACE_NUMBERS, DeepPart, embedding_rows, place_numbers
from prectr.model.models.neural import NeuralModel


class DeepNetwork(NeuralModel):
    """The deep part and the biases of the place."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._deep = DeepPart(config.embedding_dim, config.hidden, PLACE_NUMBERS + config.reads_text)
        self._size = config.embedding_rows
        super().__init__(
            {"embedding": embedding_table(config, device), "place": place_table(config, device)},
            DenseParameters(self._deep.shapes(), rate=config.dense_rate, seed=config.seed, device=device),
            device,
        )

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """Rows of the embeddings, and int64[N, 3] of the place."""
        return {"embedding": embedding_rows(batch, self._size), "place": place_rows(batch)}

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        deep = self._deep.logits(batch, looked_up["embedding"], self.tensor(place_numbers(batch)), self._dense).squeeze(
            1
        )
        return deep + linear(looked_up["place"])


def embedding_table(config: TrainerConfig, device: torch.device) -> HashedTable:
    """The hashed embedding table that all ids share."""
    return HashedTable(
        config.embedding_rows,
        config.embedding_dim,
        Adagrad(config.embedding_rate),
        seed=config.seed,
        scale=config.embedding_scale,
        device=device,
    )
