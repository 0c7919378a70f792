"""Terms that are added to the conditional log-odds without passing through the network."""

from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import Module

from prectr.model.features.exposure import EXPOSURE_FEATURES, LEVEL_FEATURES
from prectr.model.layers.linear import Linear, uniform_parameter
from prectr.state.aggregates import LEVEL_COUNT

_FEATURES_PER_LEVEL: Final = 3
_INITIAL_EXPOSURE_SLOPE: Final = 1.0
"""Initial increase of a level's log-odds, per level and per log-odds of exposure: a ranker that writes a log shows
what it takes for relevant (reconstruction)."""


class AggregateTerm(Module):
    """Linear term over the click-rate features of category, query and user at each level.

    Args:
        sources: how many of query and user there are, 1 or 2.
        centered_levels: float32[4], levels 1 to 4 around their middle.
        generator: source of the initial weights.
    """

    centered_levels: Tensor

    def __init__(self, sources: int, centered_levels: Tensor, generator: Generator) -> None:
        super().__init__()
        self.weight = uniform_parameter(1 + _FEATURES_PER_LEVEL * sources, bound=0.0, generator=generator)
        self.register_buffer("centered_levels", centered_levels, persistent=False)

    def forward(self, category: Tensor, sources: list[Tensor]) -> Tensor:
        """float32[N, 4] from category: float32[N, 4] and sources: float32[N, 10] each."""
        per_level = [category.unsqueeze(2), *(self._per_level(each) for each in sources)]
        return torch.cat(per_level, dim=2) @ self.weight

    def _per_level(self, features: Tensor) -> Tensor:
        """float32[N, 4, 3]: difference of log-odds at each level; intercept and slope; the slope's part of it."""
        difference, intercept, slope = features[:, :LEVEL_COUNT], features[:, -2:-1], features[:, -1:]
        slope_term = slope * self.centered_levels
        return torch.stack([difference, intercept + slope_term, slope_term], dim=2)


class ExposureTerms(Module):
    """What the exposure of an item under its query adds: to the click log-odds, and to the level logits."""

    def __init__(self, centered_levels: Tensor, generator: Generator) -> None:
        """Start without effect on clicks, and with a slope over the levels; centered_levels: float32[4]."""
        super().__init__()
        self.click = Linear(EXPOSURE_FEATURES, 1, generator)
        self.level = Linear(LEVEL_FEATURES, LEVEL_COUNT, generator)
        with torch.no_grad():
            self.level.weight[:, 0] = _INITIAL_EXPOSURE_SLOPE * centered_levels

    def click_log_odds(self, features: Tensor) -> Tensor:
        """float32[N, 1] from the exposure features float32[N, 5]."""
        log_odds: Tensor = self.click(features)
        return log_odds

    def level_logits(self, features: Tensor) -> Tensor:
        """float32[N, 4] from the exposure features float32[N, 5]."""
        logits: Tensor = self.level(features[:, :LEVEL_FEATURES])
        return logits
