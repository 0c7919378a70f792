"""`wide-deep`: a linear part that memorises and a deep part that generalises (Cheng et al. 2016).

Wide: position, level, ids, groups, and the crosses query × level and user × level, by FTRL-Proximal.
Deep: as `dnn`. Both are trained jointly: their logits add up, and one loss goes back through both.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainerConfig
from model.deep import PLACE_NUMBERS, DeepPart, embedding_rows, place_numbers
from model.dense import DenseParameters
from model.dnn import embedding_table
from model.embeddings import Ftrl, HashedTable
from model.features import Batch
from model.neural import NeuralModel
from model.wide import Rows, bias_rows, cross_rows, group_rows, id_rows


class WideDeep(NeuralModel):
    """The wide and the deep part, summed."""

    columns = PLACE_NUMBERS
    """Columns of `numbers`."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._deep = DeepPart(config.embedding_dim, config.hidden, self.columns)
        self._embedding_rows = config.embedding_rows
        self._wide_rows = config.wide_rows
        wide = HashedTable(
            config.wide_rows,
            1,
            Ftrl(config.ftrl_alpha, config.ftrl_beta, config.ftrl_l1, config.ftrl_l2),
            seed=config.seed,
            scale=0.0,
            device=device,
        )
        super().__init__(
            {"embedding": embedding_table(config, device), "wide": wide},
            DenseParameters(self._deep.shapes(), rate=config.dense_rate, seed=config.seed, device=device),
            device,
        )

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """Rows of the embedding table, and int64[N, 11] of the wide one."""
        size = self._wide_rows
        wide = [bias_rows(batch), id_rows(batch, size), group_rows(batch, size), cross_rows(batch, size)]
        return {"embedding": embedding_rows(batch, self._embedding_rows), "wide": np.concatenate(wide, axis=1)}

    def numbers(self, batch: Batch) -> NDArray[np.float32]:
        """The numbers that join the embeddings, float32[N, columns]."""
        return place_numbers(batch)

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        deep = self._deep.logits(batch, looked_up["embedding"], self.tensor(self.numbers(batch)), self._dense)
        return deep + looked_up["wide"].sum(dim=(1, 2))
