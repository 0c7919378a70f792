"""`wide-deep+`: wide & deep that also reads the click rates by level of the query and of the user.

In addition to `wide-deep`: the smoothed rates with their counts, in the deep component and in a linear term of their
own; a slope over the level, learned for each query and user; SC-Adagrad for the wide component; what the query's
decayed rates show to have changed, with weights that adapt at once. With `exposure=on`, also how often items have been
shown for the query.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.aggregate_features import CENTERED_LEVELS, RATE_FEATURES, rate_features, recent_shifts
from prectr.model.features.batch import Batch
from prectr.model.features.exposure import EXPOSURE_FEATURES, ExposureSketch
from prectr.model.features.hashed_features import (
    Indices,
    position_indices,
    position_table,
    recency_indices,
    recency_table,
    slope_indices,
    sum_weights,
    weigh_features,
    weight_table,
)
from prectr.model.layers.linear import Linear
from prectr.model.layers.mlp import POSITION_FEATURES, DeepComponent, embedding_indices, position_features
from prectr.model.layers.sparse_optimizers import ScAdagrad
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel
from prectr.model.models.wide_deep import wide_indices


class WideDeepPlus(NeuralModel):
    """The sum of the wide component, the deep one with click rates, the rates' own linear term, and the slopes."""

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        exposure_sketch = ExposureSketch(config.exposure_sketch_size, device) if config.exposure == "on" else None
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "position": position_table(config, device),
                "wide": weight_table(config, ScAdagrad(config.wide_prior), device),
                "slope": weight_table(config, ScAdagrad(config.slope_prior), device),
                "recency": recency_table(config, device),
            },
            device,
            {} if exposure_sketch is None else {"exposure": exposure_sketch},
        )
        self._exposure_sketch = exposure_sketch
        self._embedding_rows = config.embedding_rows
        self._wide_rows = config.wide_rows
        columns = POSITION_FEATURES + config.reads_text + RATE_FEATURES
        columns += 0 if exposure_sketch is None else EXPOSURE_FEATURES
        generator = torch.Generator().manual_seed(config.seed)
        self.deep = DeepComponent(config.embedding_dim, config.hidden, columns, generator)
        self.direct = Linear(columns, 1, generator)
        self.flatten_parameters(config.dense_lr)

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """Rows of embeddings, position and level (int64[N, 3]), wide ([N, 8 + K]), slopes ([N, 2]), recency ([H])."""
        return {
            "embedding": embedding_indices(batch, self._embedding_rows),
            "position": position_indices(batch),
            "wide": wide_indices(batch, self._wide_rows),
            "slope": slope_indices(batch, self._wide_rows),
            "recency": recency_indices(batch),
        }

    def logits(self, batch: Batch, looked_up: Mapping[str, Tensor]) -> Tensor:
        """Logits float32[N]."""
        columns = [position_features(batch), rate_features(batch)]
        if self._exposure_sketch is not None:
            columns.append(self._exposure_sketch.features(batch))
        numeric_features = self.tensor(np.concatenate(columns, axis=1))
        deep = self.deep(batch, looked_up["embedding"], numeric_features).squeeze(1)
        direct = self.direct(numeric_features).squeeze(1)
        centered_level = self.tensor(batch.level_weights @ CENTERED_LEVELS)
        slope_term = sum_weights(looked_up["slope"]) * centered_level
        wide = weigh_features(looked_up["wide"], batch)
        intercept, slope = recent_shifts(batch)
        shifts = intercept + slope * (batch.level_weights @ CENTERED_LEVELS)[:, None]
        recency_term = self.tensor(shifts) @ looked_up["recency"].squeeze(1)
        linear = sum_weights(looked_up["position"], wide) + slope_term + recency_term
        logits: Tensor = deep + direct + linear
        return logits
