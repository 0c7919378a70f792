"""Click probability as a mixture over relevance levels (PRECTR 2025): Σᵢ P(click | level=i, x) · P(level=i).

All in logarithms, so that neither a sure level nor a sure click overflows.
"""

import torch
from torch import Tensor


def fused_log_odds(conditional: Tensor, log_levels: Tensor) -> Tensor:
    """Log-odds of a click, float32[N].

    conditional: float32[N, 4], log-odds of a click given each level. log_levels: float32[N, 4], ln P(level).
    """
    click = torch.logsumexp(log_levels + torch.nn.functional.logsigmoid(conditional), dim=1)
    no_click = torch.logsumexp(log_levels + torch.nn.functional.logsigmoid(-conditional), dim=1)
    return click - no_click
