"""`wide-deep`: a wide component that memorises and a deep one that generalises (Cheng et al. 2016).

Wide: position, level, ids, groups, custom features, and the crosses query × level and user × level, trained by
FTRL-Proximal.
Deep: as `dnn`. Both are trained jointly, with one loss on the sum of their logits.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import (
    Indices,
    cross_indices,
    feature_indices,
    group_indices,
    id_indices,
    position_indices,
    position_table,
    sum_weights,
    weigh_features,
    weight_table,
)
from prectr.model.layers.mlp import POSITION_FEATURES, DeepComponent, embedding_indices, position_features
from prectr.model.layers.sparse_optimizers import Ftrl
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel


class WideDeep(NeuralModel):
    """The sum of the wide and the deep component."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        optimizer = Ftrl(config.wide_ftrl_alpha, config.wide_ftrl_beta, config.ftrl_l1, config.ftrl_l2)
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "position": position_table(config, device),
                "wide": weight_table(config, optimizer, device),
            },
            device,
        )
        self._embedding_rows = config.embedding_rows
        self._wide_rows = config.wide_rows
        generator = torch.Generator().manual_seed(config.seed)
        self.deep = DeepComponent(config.embedding_dim, config.hidden, POSITION_FEATURES + config.reads_text, generator)
        self.flatten_parameters(config.dense_lr)

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """Rows of the embeddings, int64[N, 3] of position and level, int64[N, 8 + K] of the wide weights."""
        return {
            "embedding": embedding_indices(batch, self._embedding_rows),
            "position": position_indices(batch),
            "wide": wide_indices(batch, self._wide_rows),
        }

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        deep: Tensor = self.deep(batch, looked_up["embedding"], self.tensor(position_features(batch))).squeeze(1)
        return deep + sum_weights(looked_up["position"], weigh_features(looked_up["wide"], batch))


def wide_indices(batch: Batch, size: int) -> Indices:
    """int64[N, 8 + K]: ids, groups and crosses, and K of custom features."""
    ids, groups, crosses = id_indices(batch, size), group_indices(batch, size), cross_indices(batch, size)
    return np.concatenate([ids, groups, crosses, feature_indices(batch, size)], axis=1)
