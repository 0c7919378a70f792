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
from prectr.model.features.aggregate_features import CENTERED_LEVELS, RATE_FEATURES, rate_features
from prectr.model.features.batch import Batch
from prectr.model.features.exposure import EXPOSURE_FEATURES, ExposureSketch
from prectr.model.features.hashed_features import (
    Indices,
    position_indices,
    position_table,
    slope_indices,
    sum_weights,
    weight_table,
)
from prectr.model.layers.flat_parameters import FlatParameters, ParameterSpec
from prectr.model.layers.hashed_embedding import ScAdagrad
from prectr.model.layers.mlp import POSITION_FEATURES, DeepComponent, embedding_indices, position_features
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel
from prectr.model.models.wide_deep import wide_indices


class WideDeepPlus(NeuralModel):
    """The wide part, the deep part with the rates, the rates by themselves and the slopes, summed."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._exposure_sketch = ExposureSketch(config.exposure_sketch_size, device) if config.exposure == "on" else None
        columns = POSITION_FEATURES + config.reads_text + RATE_FEATURES
        columns += 0 if self._exposure_sketch is None else EXPOSURE_FEATURES
        self._deep = DeepComponent(config.embedding_dim, config.hidden, columns)
        self._embedding_rows = config.embedding_rows
        self._wide_rows = config.wide_rows
        specs = {**self._deep.parameter_specs(), "numbers": ParameterSpec.zeros(1, columns)}
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "place": position_table(config, device),
                "wide": weight_table(config, ScAdagrad(config.wide_prior), device),
                "slope": weight_table(config, ScAdagrad(config.slope_prior), device),
            },
            FlatParameters(specs, lr=config.dense_lr, seed=config.seed, device=device),
            device,
            {} if self._exposure_sketch is None else {"exposure": self._exposure_sketch},
        )

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """Rows of the embeddings; int64[N, 3] of the place, [N, 8] of the wide weights, [N, 2] of the slopes."""
        return {
            "embedding": embedding_indices(batch, self._embedding_rows),
            "place": position_indices(batch),
            "wide": wide_indices(batch, self._wide_rows),
            "slope": slope_indices(batch, self._wide_rows),
        }

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        columns = [position_features(batch), rate_features(batch)]
        if self._exposure_sketch is not None:
            columns.append(self._exposure_sketch.features(batch))
        numeric_features = self.tensor(np.concatenate(columns, axis=1))
        deep = self._deep.logits(batch, looked_up["embedding"], numeric_features, self._dense).squeeze(1)
        direct = torch.nn.functional.linear(numeric_features, self._dense["numbers"]).squeeze(1)
        centered_level = self.tensor(batch.level_weights @ CENTERED_LEVELS)
        slope_term = sum_weights(looked_up["slope"]) * centered_level
        return deep + direct + sum_weights(looked_up["place"], looked_up["wide"]) + slope_term
