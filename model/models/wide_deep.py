"""`wide-deep`: a linear part that memorises and a deep part that generalises (Cheng et al. 2016).

Wide: position, level, ids, groups, and the crosses query × level and user × level, by FTRL-Proximal.
Deep: as `dnn`. Both are trained jointly: their logits add up, and one loss goes back through both.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.features.hashed_features import (
    Rows,
    cross_rows,
    group_rows,
    id_rows,
    linear,
    place_rows,
    place_table,
    weight_table,
)
from prectr.model.layers.flat_parameters import DenseParameters
from prectr.model.layers.hashed_embedding import Ftrl
from prectr.model.layers.mlp import PLACE_NUMBERS, DeepPart, embedding_rows, place_numbers
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel


class WideDeep(NeuralModel):
    """The wide and the deep part, summed."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._deep = DeepPart(config.embedding_dim, config.hidden, PLACE_NUMBERS + config.reads_text)
        self._embedding_rows = config.embedding_rows
        self._wide_rows = config.wide_rows
        rule = Ftrl(config.wide_alpha, config.wide_beta, config.ftrl_l1, config.ftrl_l2)
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "place": place_table(config, device),
                "wide": weight_table(config, rule, device),
            },
            DenseParameters(self._deep.shapes(), rate=config.dense_rate, seed=config.seed, device=device),
            device,
        )

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """Rows of the embeddings, int64[N, 3] of the place and int64[N, 8] of the wide weights."""
        return {
            "embedding": embedding_rows(batch, self._embedding_rows),
            "place": place_rows(batch),
            "wide": wide_rows(batch, self._wide_rows),
        }

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        deep = self._deep.logits(batch, looked_up["embedding"], self.tensor(place_numbers(batch)), self._dense).squeeze(
            1
        )
        return deep + linear(looked_up["place"], looked_up["wide"])


def wide_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 8]: ids, groups and crosses."""
    return np.concatenate([id_rows(batch, size), group_rows(batch, size), cross_rows(batch, size)], axis=1)
