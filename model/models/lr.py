"""`lr`: logistic regression by FTRL-Proximal (McMahan et al. 2013) on position, level, ids and custom
features.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.hashed_features import (
    Indices,
    feature_indices,
    feature_weights,
    id_indices,
    position_indices,
    position_table,
    sum_weights,
    weigh_features,
    weight_table,
)
from prectr.model.features.level_prior import Bools
from prectr.model.features.smoothing import PRIOR_LOG_ODDS
from prectr.model.layers.gradients import Gradients, SparseGradient
from prectr.model.layers.hashed_embedding import GatheredRows
from prectr.model.layers.sparse_optimizers import Ftrl
from prectr.model.models.candidate_levels import learned_levels, score_candidates
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.prefixed_tensors import add_prefix, select_prefix


class LogisticRegression:
    """One weight per feature value; the logit is a fixed prior plus their sum. The gradient has a closed form."""

    feature_needs = FeatureNeeds(history=False)

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        optimizer = Ftrl(config.ftrl_alpha, config.ftrl_beta, config.ftrl_l1, config.ftrl_l2)
        self._tables = {"position": position_table(config, device), "ids": weight_table(config, optimizer, device)}
        self._size = config.wide_rows
        self._device = device

    def _indices(self, batch: Batch) -> dict[str, Indices]:
        ids = np.concatenate([id_indices(batch, self._size), feature_indices(batch, self._size)], axis=1)
        return {"position": position_indices(batch), "ids": ids}

    def forward(self, batch: Batch) -> ForwardOutput:
        """Score the batch; the loss is the mean log loss."""
        with torch.no_grad():
            gathered = {name: self._tables[name].gather(rows) for name, rows in self._indices(batch).items()}
            logits = _logits({name: each.lookup() for name, each in gathered.items()}, batch)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, self._clicks(batch))
        return ForwardOutput(logits, {"click": loss}, gathered)

    def gradients(self, batch: Batch, forward: ForwardOutput) -> Gradients:
        """The gradient of a weight is Σ (p − y)·x over its impressions; x is 1 but for custom features."""
        residual = torch.sigmoid(forward.logits) - self._clicks(batch)
        factors = torch.from_numpy(feature_weights(batch)).to(self._device)
        tables = {
            name: SparseGradient(
                gathered.indices, _sum_by_index(residual, gathered, factors if name == "ids" else None)
            )
            for name, gathered in forward.gathered.items()
        }
        return Gradients(batch.impressions, residual[:0], tables)

    def zero_gradients(self) -> Gradients:
        """Zero gradients (empty batch)."""
        tables = {name: table.empty_gradient() for name, table in self._tables.items()}
        return Gradients(0, torch.empty(0, device=self._device), tables)

    def parameter_at(self, index: int) -> str:
        """There is no dense parameter."""
        raise IndexError(f"lr has no dense parameter {index}")

    def step(self, gradients: Gradients) -> None:
        """Update the rows."""
        for name, gradient in gradients.tables.items():
            self._tables[name].apply(gradient)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], without learning."""
        return score_candidates(self._read_logits, batch, self.learned_levels())

    def learned_levels(self) -> Bools:
        """bool[4]: the levels learned from."""
        return learned_levels(self._tables["position"])

    def _read_logits(self, batch: Batch) -> Tensor:
        return _logits({name: self._tables[name].read(rows) for name, rows in self._indices(batch).items()}, batch)

    def _clicks(self, batch: Batch) -> Tensor:
        return torch.from_numpy(batch.labels.astype(np.float32)).to(self._device)

    def weights(self) -> dict[str, Tensor]:
        """The tables of weights."""
        return {name: table.values for name, table in self._tables.items()}

    def training_state(self) -> dict[str, Tensor]:
        """The rows that have been trained."""
        tensors: dict[str, Tensor] = {}
        for name, table in self._tables.items():
            tensors |= add_prefix(f"{name}.", table.state_dict())
        return tensors

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` returned."""
        for name, table in self._tables.items():
            table.load_state_dict(select_prefix(f"{name}.", tensors))


def _logits(looked_up: dict[str, Tensor], batch: Batch) -> Tensor:
    return sum_weights(looked_up["position"], weigh_features(looked_up["ids"], batch)) + PRIOR_LOG_ODDS


def _sum_by_index(residual: Tensor, gathered: GatheredRows, factors: Tensor | None) -> Tensor:
    """Gradients float32[U, 1] of the gathered rows; factors: float32[N, K] of the last K columns."""
    index = gathered.inverse
    contributions = residual.repeat_interleave(index.shape[1])
    if factors is not None and factors.shape[1]:
        contributions.view(index.shape)[:, -factors.shape[1] :] *= factors
    sums = residual.new_zeros(len(gathered.indices))
    return sums.index_add_(0, index.flatten(), contributions).unsqueeze(1)
