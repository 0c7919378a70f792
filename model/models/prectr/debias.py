"""Exposure debias: impressions that were shown are not a fair sample of the candidates.

Hard negatives are made within the batch, on the device, from the encodings at hand: noise on a pair's embedding, and
a fake, lower level (PRECTR-V2 2026; the formulas of noise, margins and truncation are reconstructions).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import binary_cross_entropy_with_logits

from prectr.model.config import TrainerConfig
from prectr.model.features.batch import Batch
from prectr.model.models.online_model import LossReduction

_SEED_STRIDE: Final = 1_000_003
"""Spreads the seeds of runs apart: a batch's negatives are a function of seed and step alone."""


@dataclass(frozen=True, slots=True)
class DebiasLoss:
    """The weighted loss of a batch's hard negatives, what it averages over, and their counts by name."""

    loss: Tensor
    reduction: LossReduction
    counts: dict[str, Tensor]


class ExposureDebias(Module):
    """Prior adjustment of the level distribution, and the loss on hard negatives; without parameters.

    `config.debias` selects the form: `hinge` as published, `prior_adjustment`, or `prior_adjustment+soft`.
    """

    candidate_shares: Tensor

    def __init__(self, config: TrainerConfig, candidate_shares: Tensor) -> None:
        """candidate_shares: float32[4], shares of the levels among candidates."""
        super().__init__()
        self._config = config
        self.adjusts_prior = config.debias.startswith("prior_adjustment")
        self.uses_hard_negatives = config.debias != "prior_adjustment"
        self.register_buffer("candidate_shares", candidate_shares, persistent=False)

    def log_levels(self, level_logits: Tensor, exposed_shares: Tensor, is_exposed: Tensor) -> Tensor:
        """ln P(level) of impressions that were exposed or not; arguments as of `adjust_prior`."""
        return adjust_prior(level_logits, exposed_shares, self.candidate_shares, is_exposed)

    def forward(
        self,
        batch: Batch,
        log_levels: Tensor,
        log_odds: Tensor,
        pair_embeddings: Tensor,
        conditional_logits: Callable[[Tensor], Tensor],
        step: int,
    ) -> DebiasLoss:
        """The loss on hard negatives.

        Args:
            batch: the batch of N impressions, or one rank's shard of it.
            log_levels: float32[N, 4], ln P(level).
            log_odds: float32[N], of a click.
            pair_embeddings: float32[N, W].
            conditional_logits: gives float32[N, 4], log-odds of a click given each level, of other pair embeddings.
            step: batches learned from before.
        """
        config, device = self._config, log_odds.device
        generator = torch.Generator(device).manual_seed(config.seed * _SEED_STRIDE + step)
        levels = log_levels.detach().argmax(dim=1)
        positions, shard = np.arange(batch.impressions), None
        if batch.global_positions is not None:
            positions = batch.global_positions
            shard = torch.from_numpy(positions).to(device), batch.global_size
        negatives = hard_negatives(pair_embeddings, levels, config.hard_negative_noise, generator, shard)
        noisy_logits = conditional_logits(negatives.noisy_embeddings)
        negative = _at_level(noisy_logits.index_select(0, negatives.impression_index), negatives.fake_level)
        positive = log_odds.index_select(0, negatives.impression_index)
        violation = margin_violation(positive.detach(), negative.detach(), negatives.level_gap, config.hinge_margin)
        counts = {
            "hard_negatives": torch.tensor(len(negatives.impression_index)),
            "margin_violations": (violation > 0).sum(),
        }
        keys = positions[negatives.impression_index.cpu().numpy()].astype(np.uint64)
        if config.debias == "hinge":
            within = within_truncation(violation, config.hinge_truncation)
            loss = hinge_loss(positive, negative, negatives.level_gap, config.hinge_margin, config.hinge_truncation)

            def per_negative() -> Tensor:
                margins = margin_violation(positive, negative, negatives.level_gap, config.hinge_margin)
                return config.hinge_weight * margins[within]

            reduction = LossReduction(keys[within.cpu().numpy()], per_negative)
            return DebiasLoss(config.hinge_weight * loss, reduction, counts)
        rates = torch.from_numpy(batch.rates.query.astype(np.float32)).to(device)
        rate = _at_level(rates.index_select(0, negatives.impression_index), negatives.fake_level)

        def per_target() -> Tensor:
            return config.soft_target_weight * binary_cross_entropy_with_logits(negative, rate, reduction="none")

        loss = config.soft_target_weight * soft_target_loss(negative, rate)
        return DebiasLoss(loss, LossReduction(keys, per_target), counts)


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """One per impression above the lowest level, M of them.

    impression_index: int64[M]. fake_level: int64[M], 0 to 2. level_gap: float32[M], levels between the impression's
    and the fake one. noisy_embeddings: float32[N, W], pair embeddings of all N impressions, with noise.
    """

    impression_index: Tensor
    fake_level: Tensor
    level_gap: Tensor
    noisy_embeddings: Tensor


def hard_negatives(
    pair_embeddings: Tensor,
    levels: Tensor,
    noise_scale: float,
    generator: torch.Generator,
    shard: tuple[Tensor, int] | None = None,
) -> HardNegatives:
    """ẽ = e + s·(|e|/√d)·N(0, I), with a level drawn uniformly from those below the impression's.

    Args:
        pair_embeddings: float32[N, W].
        levels: int64[N], 0 to 3; impressions at level 0 have no negative.
        noise_scale: s.
        generator: on the embeddings' device.
        shard: where several ranks share a batch, the positions int64[N] of this rank's impressions in it, and its
            size; the draws of an impression do not depend on how the batch is sharded.
    """
    count = len(pair_embeddings) if shard is None else shard[1]
    uniform = torch.rand(count, generator=generator, device=pair_embeddings.device)
    noise = torch.randn((count, pair_embeddings.shape[1]), generator=generator, device=pair_embeddings.device)
    if shard is not None:
        uniform, noise = uniform.index_select(0, shard[0]), noise.index_select(0, shard[0])
    impression_index = (levels > 0).nonzero().squeeze(1)
    own = levels.index_select(0, impression_index)
    fake_level = (uniform.index_select(0, impression_index) * own).long()
    rms = pair_embeddings.norm(dim=1, keepdim=True) / pair_embeddings.shape[1] ** 0.5
    return HardNegatives(
        impression_index, fake_level, (own - fake_level).float(), pair_embeddings + noise_scale * rms * noise
    )


def margin_violation(positive: Tensor, negative: Tensor, level_gap: Tensor, margin: float) -> Tensor:
    """float32[M]: max(0, m − (s⁺ − s⁻)), where the margin m is `margin` per level of the gap, two levels at most."""
    return torch.relu(margin * level_gap.clamp(max=2.0) - (positive - negative))


def hinge_loss(positive: Tensor, negative: Tensor, level_gap: Tensor, margin: float, truncation: float) -> Tensor:
    """Truncated pairwise hinge: max(0, min(m, c) − (s⁺ − s⁻)), mean over the pairs within the truncation.

    positive, negative: float32[M], log-odds. level_gap: float32[M]; the margin is `margin` per level, two levels at
    most. Pairs that violate it by `truncation` or more are left out, as probably mislabelled.
    """
    violation = margin_violation(positive, negative, level_gap, margin)
    mask = within_truncation(violation, truncation).float()
    return (violation * mask).sum() / mask.sum().clamp(min=1.0)


def within_truncation(violation: Tensor, truncation: float) -> Tensor:
    """bool[M]: which pairs the hinge counts, by their `margin_violation`."""
    return violation.detach() < truncation


def adjust_prior(level_logits: Tensor, exposed_shares: Tensor, candidate_shares: Tensor, is_exposed: Tensor) -> Tensor:
    """ln P(level) under the level frequencies of exposed items: log softmax(ℓ + ln π_exposed − ln π_candidates).

    Prior correction (Saerens et al. 2002), also known as logit adjustment (Menon et al. 2021): a logging ranker does
    not expose the levels with the frequencies of its candidates. That it stands for exposure debias here is a
    reconstruction.

    Args:
        level_logits: float32[N, 4], calibrated for candidates.
        exposed_shares: float32[4] or float32[N, 4], level frequencies of exposed items, in all or by query.
        candidate_shares: float32[4], level frequencies of candidates.
        is_exposed: bool[N], the pairs to adjust.
    """
    adjustment = (exposed_shares.log() - candidate_shares.log()) * is_exposed.float().unsqueeze(1)
    return torch.log_softmax(level_logits + adjustment, dim=1)


def soft_target_loss(negative: Tensor, rate: Tensor) -> Tensor:
    """Log loss of hard negatives against the query's smoothed click rate at their fake level, mean over M.

    negative: float32[M], log-odds of a click. rate: float32[M], (c + k·g)/(n + k) (`SmoothedRates.query`).
    """
    if not len(negative):
        return negative.sum()
    return binary_cross_entropy_with_logits(negative, rate)


def _at_level(by_level: Tensor, level: Tensor) -> Tensor:
    """float32[M]: of each row of float32[M, any], the column `level` int64[M]."""
    return by_level.gather(1, level.unsqueeze(1)).squeeze(1)
