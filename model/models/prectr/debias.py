"""Exposure debias: what was never shown must not be taken for what was shown.

Hard negatives are made in the batch, on the device, from what the encoder has said already: noise on a pair's
embedding and a fake, lower level (PRECTR-V2 2026; formulas of noise, margins and truncation are reconstructions).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """One for each impression that has a lower level to fall to.

    of: int64[M], its impression. level: int64[M], its fake level, 0 to 2. drop: float32[M], how many levels lower
    than its impression's. noisy: float32[N, W], pair embeddings of all N impressions, with noise.
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
    """ẽ = e + s·(|e|/√d)·N(0, I), and a level drawn evenly from those below the impression's.

    pair: float32[N, W]. levels: int64[N], 0 to 3. Those at the lowest level have no negative.
    among: places int64[N] of the impressions in a batch of so many that several ranks share: what is drawn for an
    impression is the same, however the batch is spread.
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
    """float32[M]: by how much pairs of log-odds are nearer than their margin, clipped at two levels; 0 if not."""
    return torch.relu(margin * level_gap.clamp(max=2.0) - (positive - negative))


def hinge_loss(positive: Tensor, negative: Tensor, level_gap: Tensor, margin: float, truncation: float) -> Tensor:
    """Pairwise hinge, Σ max(0, min(m, c) − (s⁺ − s⁻)), truncated; mean over the M pairs that count.

    positive, negative: float32[M], log-odds. drop: float32[M], levels between them: the margin is `margin` a level,
    clipped at two levels. Pairs that are further wrong than `truncation` are left out, as likely mislabelled.
    """
    violation = margin_violation(positive, negative, level_gap, margin)
    mask = within_truncation(violation, truncation).float()
    return (violation * mask).sum() / mask.sum().clamp(min=1.0)


def within_truncation(violation: Tensor, truncation: float) -> Tensor:
    """bool[M]: which of the pairs that miss their margin by so much count in the hinge."""
    return violation.detach() < truncation


def adjust_prior(level_logits: Tensor, exposed_shares: Tensor, candidate_shares: Tensor, is_exposed: Tensor) -> Tensor:
    """ln P(level) of pairs, with what being shown says: softmax(ℓ + ln π_exposed − ln π_candidates).

    level_logits: float32[N, 4], which speak of candidates. exposed: float32[4] or [N, 4], level frequencies of what was
    shown, at all or for the query; candidates: float32[4], those of candidates. shown: bool[N], pairs that were shown;
    others are left as they are.
    Our reconstruction (`prior_adjustment`): the levels that a logging ranker shows are not those of its candidates.
    """
    adjustment = (exposed_shares.log() - candidate_shares.log()) * is_exposed.float().unsqueeze(1)
    return torch.log_softmax(level_logits + adjustment, dim=1)


def soft_target_loss(negative: Tensor, rate: Tensor) -> Tensor:
    """Log loss of hard negatives against the query's smoothed click rate at their fake level, mean over M.

    negative: float32[M], log-odds of a click at position 1. rate: float32[M], (c + 20·g)/(n + 20).
    """
    if not len(negative):
        return negative.sum()
    return torch.nn.functional.binary_cross_entropy_with_logits(negative, rate)
