"""Semantic consistency: what is more relevant is not clicked less, and levels go on meaning what they meant."""

import torch
from torch import Tensor


def monotonicity_loss(conditional: Tensor) -> Tensor:
    """How far the click probability falls as relevance rises: Σᵢ max(0, P(click|i) − P(click|i+1)), mean over N.

    conditional: float32[N, 4], log-odds of a click given levels 1 to 4 (PRECTR 2025; the hinge is a reconstruction).
    """
    probability = torch.sigmoid(conditional)
    return torch.relu(probability[:, :-1] - probability[:, 1:]).sum(dim=1).mean()


def stage_one_kl(log_levels: Tensor, stage_one: Tensor) -> Tensor:
    """KL(stage one ‖ now) of the level distributions, mean over A pairs, 0 of none (reconstruction).

    log_levels: float32[A, 4], ln P(level) as it is now. stage_one: float32[A, 4], logits before joint training.
    """
    if not len(log_levels):
        return log_levels.sum()
    # The same as the mean of `divergence`, but for rounding.
    return torch.nn.functional.kl_div(
        log_levels, torch.log_softmax(stage_one, dim=1), reduction="batchmean", log_target=True
    )


def stage_one_kl_per_pair(log_levels: Tensor, stage_one: Tensor) -> Tensor:
    """KL(stage one ‖ now) of each of the A pairs, float32[A]; arguments as of `anchor_loss`."""
    target = torch.log_softmax(stage_one, dim=1)
    return torch.nn.functional.kl_div(log_levels, target, reduction="none", log_target=True).sum(dim=1)
