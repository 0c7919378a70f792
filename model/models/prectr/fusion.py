"""Click probability as a mixture over relevance levels (PRECTR 2025): Σᵢ P(click | level=i, x) · P(level=i).

Computed in log space, so that neither a certain level nor a certain click overflows.
"""

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import logsigmoid


class RelevanceFusion(Module):
    """Mixes the conditional click probabilities by the level distribution; without parameters."""

    def forward(self, conditional: Tensor, log_levels: Tensor) -> Tensor:
        """Log-odds of a click, float32[N].

        Args:
            conditional: float32[N, 4], log-odds of a click given each level.
            log_levels: float32[N, 4], ln P(level).
        """
        click = torch.logsumexp(log_levels + logsigmoid(conditional), dim=1)
        no_click = torch.logsumexp(log_levels + logsigmoid(-conditional), dim=1)
        return click - no_click
