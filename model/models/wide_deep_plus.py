"""`wide-deep+`: wide & deep that also reads the click rates by level of the query and of the user.

Besides all of `wide-deep`: the smoothed rates with their counts, in the deep part and straight to the logit;
a slope over the level, learned for each query and user; Newton steps for the wide part. With `exposure=on`, also how
often items have been shown for the query.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.aggregate_features import LEVEL_STEPS, RATE_NUMBERS, rate_numbers
from prectr.model.features.batch import Batch
from prectr.model.features.exposure import EXPOSURE_NUMBERS, ExposureCounts
from prectr.model.features.hashed_features import Rows, linear, place_rows, place_table, slope_rows, weight_table
from prectr.model.layers.flat_parameters import DenseParameters, Shape
from prectr.model.layers.hashed_embedding import Newton
from prectr.model.layers.mlp import PLACE_NUMBERS, DeepPart, embedding_rows, place_numbers
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel
from prectr.model.models.wide_deep import wide_rows


class WideDeepPlus(NeuralModel):
    """The wide part, the deep part with the rates, the rates by themselves and the slopes, summed."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._exposure = ExposureCounts(config.exposure_slots, device) if config.exposure == "on" else None
        columns = PLACE_NUMBERS + config.reads_text + RATE_NUMBERS
        columns += 0 if self._exposure is None else EXPOSURE_NUMBERS
        self._deep = DeepPart(config.embedding_dim, config.hidden, columns)
        self._embedding_rows = config.embedding_rows
        self._wide_rows = config.wide_rows
        shapes = {**self._deep.shapes(), "numbers": Shape.zeros(1, columns)}
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "place": place_table(config, device),
                "wide": weight_table(config, Newton(config.wide_prior), device),
                "slope": weight_table(config, Newton(config.slope_prior), device),
            },
            DenseParameters(shapes, rate=config.dense_rate, seed=config.seed, device=device),
            device,
            {} if self._exposure is None else {"exposure": self._exposure},
        )

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """Rows of the embeddings; int64[N, 3] of the place, [N, 8] of the wide weights, [N, 2] of the slopes."""
        return {
            "embedding": embedding_rows(batch, self._embedding_rows),
            "place": place_rows(batch),
            "wide": wide_rows(batch, self._wide_rows),
            "slope": slope_rows(batch, self._wide_rows),
        }

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        columns = [place_numbers(batch), rate_numbers(batch)]
        if self._exposure is not None:
            columns.append(self._exposure.numbers(batch))
        numbers = self.tensor(np.concatenate(columns, axis=1))
        deep = self._deep.logits(batch, looked_up["embedding"], numbers, self._dense).squeeze(1)
        straight = torch.nn.functional.linear(numbers, self._dense["numbers"]).squeeze(1)
        steps = self.tensor(batch.level_weights @ LEVEL_STEPS)
        tilt = linear(looked_up["slope"]) * steps
        return deep + straight + linear(looked_up["place"], looked_up["wide"]) + tilt
