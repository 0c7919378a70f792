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

    of: Tensor
    level: Tensor
    drop: Tensor
    noisy: Tensor


def hard_negatives(
    pair: Tensor, levels: Tensor, scale: float, random: torch.Generator, among: tuple[Tensor, int] | None = None
) -> HardNegatives:
    """ẽ = e + s·(|e|/√d)·N(0, I), and a level drawn evenly from those below the impression's.

    pair: float32[N, W]. levels: int64[N], 0 to 3. Those at the lowest level have no negative.
    among: places int64[N] of the impressions in a batch of so many that several ranks share: what is drawn for an
    impression is the same, however the batch is spread.
    """
    count = len(pair) if among is None else among[1]
    drawn = torch.rand(count, generator=random, device=pair.device)
    noise = torch.randn((count, pair.shape[1]), generator=random, device=pair.device)
    if among is not None:
        drawn, noise = drawn.index_select(0, among[0]), noise.index_select(0, among[0])
    of = (levels > 0).nonzero().squeeze(1)
    own = levels.index_select(0, of)
    fake = (drawn.index_select(0, of) * own).long()
    length = pair.norm(dim=1, keepdim=True) / pair.shape[1] ** 0.5
    return HardNegatives(of, fake, (own - fake).float(), pair + scale * length * noise)


def shortfall(positive: Tensor, negative: Tensor, drop: Tensor, margin: float) -> Tensor:
    """float32[M]: by how much pairs of log-odds are nearer than their margin, clipped at two levels; 0 if not."""
    return torch.relu(margin * drop.clamp(max=2.0) - (positive - negative))


def hinge_loss(positive: Tensor, negative: Tensor, drop: Tensor, margin: float, truncation: float) -> Tensor:
    """Pairwise hinge, Σ max(0, min(m, c) − (s⁺ − s⁻)), truncated; mean over the M pairs that count.

    positive, negative: float32[M], log-odds. drop: float32[M], levels between them: the margin is `margin` a level,
    clipped at two levels. Pairs that are further wrong than `truncation` are left out, as likely mislabelled.
    """
    short = shortfall(positive, negative, drop, margin)
    counts = counted(short, truncation).float()
    return (short * counts).sum() / counts.sum().clamp(min=1.0)


def counted(short: Tensor, truncation: float) -> Tensor:
    """bool[M]: which of the pairs that miss their margin by so much count in the hinge."""
    return short.detach() < truncation


def shifted(level_logits: Tensor, exposed: Tensor, candidates: Tensor, shown: Tensor) -> Tensor:
    """ln P(level) of pairs, with what being shown says: softmax(ℓ + ln π_exposed − ln π_candidates).

    level_logits: float32[N, 4], which speak of candidates. exposed: float32[4] or [N, 4], level frequencies of what was
    shown, at all or for the query; candidates: float32[4], those of candidates. shown: bool[N], pairs that were shown;
    others are left as they are.
    Our reconstruction (`shift`): the levels that a logging ranker shows are not those of its candidates.
    """
    towards = (exposed.log() - candidates.log()) * shown.float().unsqueeze(1)
    return torch.log_softmax(level_logits + towards, dim=1)


def soft_target_loss(negative: Tensor, rate: Tensor) -> Tensor:
    """Log loss of hard negatives against the query's smoothed click rate at their fake level, mean over M.

    negative: float32[M], log-odds of a click at position 1. rate: float32[M], (c + 20·g)/(n + 20).
    """
    if not len(negative):
        return negative.sum()
    return torch.nn.functional.binary_cross_entropy_with_logits(negative, rate)
