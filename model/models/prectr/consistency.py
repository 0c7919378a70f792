"""Semantic consistency: clicks do not fall as relevance rises, and levels keep the meaning of stage one."""

import torch
from torch import Tensor
from torch.nn import Module

from prectr.model.features.hashing import U64
from prectr.model.models.online_model import LossReduction


class SemanticConsistency(Module):
    """The two consistency losses, weighted; without parameters.

    Args:
        monotonicity_weight: of the hinge on the order of the conditional click probabilities.
        stage_one_kl_weight: of the divergence from stage one's level distribution.
    """

    def __init__(self, monotonicity_weight: float, stage_one_kl_weight: float) -> None:
        super().__init__()
        self.monotonicity_weight = monotonicity_weight
        self.stage_one_kl_weight = stage_one_kl_weight

    def monotonicity(self, conditional: Tensor) -> Tensor:
        """Weighted `monotonicity_loss`."""
        return self.monotonicity_weight * monotonicity_loss(conditional)

    def stage_one(self, log_levels: Tensor, stage_one: Tensor) -> Tensor:
        """Weighted `stage_one_kl`."""
        return self.stage_one_kl_weight * stage_one_kl(log_levels, stage_one)

    def stage_one_reduction(self, keys: U64, log_levels: Tensor, stage_one: Tensor) -> LossReduction:
        """What `stage_one` averages over: A pairs, identified by keys uint64[A]."""
        return LossReduction(keys, lambda: self.stage_one_kl_weight * stage_one_kl_per_pair(log_levels, stage_one))


def monotonicity_loss(conditional: Tensor) -> Tensor:
    """Decrease of the click probability as relevance rises: Σᵢ max(0, P(click|i) − P(click|i+1)), mean over N.

    conditional: float32[N, 4], log-odds of a click given levels 1 to 4 (PRECTR 2025; the hinge is a reconstruction).
    """
    probability = torch.sigmoid(conditional)
    return torch.relu(probability[:, :-1] - probability[:, 1:]).sum(dim=1).mean()


def stage_one_kl(log_levels: Tensor, stage_one: Tensor) -> Tensor:
    """KL(stage one ‖ current) of the level distributions, mean over A pairs; 0 without pairs (reconstruction).

    log_levels: float32[A, 4], current ln P(level). stage_one: float32[A, 4], level logits before joint training.
    """
    if not len(log_levels):
        return log_levels.sum()
    # The mean of `stage_one_kl_per_pair`, up to rounding.
    return torch.nn.functional.kl_div(
        log_levels, torch.log_softmax(stage_one, dim=1), reduction="batchmean", log_target=True
    )


def stage_one_kl_per_pair(log_levels: Tensor, stage_one: Tensor) -> Tensor:
    """KL(stage one ‖ current) of each of the A pairs, float32[A]; arguments as of `stage_one_kl`."""
    target = torch.log_softmax(stage_one, dim=1)
    return torch.nn.functional.kl_div(log_levels, target, reduction="none", log_target=True).sum(dim=1)
