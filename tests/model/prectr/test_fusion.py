"""Fusion against sums written out by hand, in double precision."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prectr.model.models.prectr.fusion import RelevanceFusion

fusion = RelevanceFusion()


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _fused(conditional: list[float], levels: list[float]) -> float:
    given_levels = torch.tensor([conditional], dtype=torch.float32)
    return fusion(given_levels, torch.tensor([levels], dtype=torch.float64).log().float()).item()


def test_click_probability_is_the_mixture_over_levels() -> None:
    """0.1·0.1 + 0.2·0.2 + 0.3·0.4 + 0.4·0.8 = 0.49."""
    conditional = [_log_odds(p) for p in (0.1, 0.2, 0.4, 0.8)]
    assert _fused(conditional, [0.1, 0.2, 0.3, 0.4]) == pytest.approx(_log_odds(0.49), abs=1e-6)


@pytest.mark.parametrize("level", range(4))
def test_a_sure_level_leaves_its_own_click_probability(level: int) -> None:
    conditional = [-3.0, -1.0, 0.5, 2.0]
    sure = [0.0] * 4
    sure[level] = 1.0
    assert _fused(conditional, sure) == pytest.approx(conditional[level], abs=1e-6)


def test_where_the_level_changes_nothing_its_distribution_does_not_matter() -> None:
    for levels in ([0.25] * 4, [0.97, 0.01, 0.01, 0.01], [0.0, 0.5, 0.5, 0.0]):
        assert _fused([-1.7] * 4, levels) == pytest.approx(-1.7, abs=1e-6)


@given(
    conditional=st.lists(st.floats(-12, 12), min_size=4, max_size=4),
    levels=st.lists(st.floats(-6, 6), min_size=4, max_size=4),
)
def test_the_mixture_is_the_sum_of_products(conditional: list[float], levels: list[float]) -> None:
    weights = [math.exp(level) for level in levels]
    shares = [weight / sum(weights) for weight in weights]
    click = sum(share / (1 + math.exp(-odds)) for share, odds in zip(shares, conditional, strict=True))
    none = sum(share / (1 + math.exp(odds)) for share, odds in zip(shares, conditional, strict=True))
    assert _fused(conditional, shares) == pytest.approx(math.log(click) - math.log(none), abs=2e-5)


def test_each_impression_is_mixed_independently() -> None:
    random = torch.Generator().manual_seed(3)
    conditional = torch.randn(9, 4, generator=random)
    levels = torch.log_softmax(torch.randn(9, 4, generator=random), dim=1)
    whole = fusion(conditional, levels)
    assert whole.shape == (9,)
    for n in range(9):
        assert whole[n].item() == pytest.approx(_fused(conditional[n].tolist(), levels[n].exp().tolist()), abs=1e-5)


def test_gradients_are_those_of_the_formula() -> None:
    """With P = Σ πᵢpᵢ: ∂/∂cᵢ = πᵢpᵢ(1 − pᵢ)/(P(1 − P)); ∂/∂ln πᵢ = πᵢpᵢ/P − πᵢ(1 − pᵢ)/(1 − P)."""
    p, levels = [0.05, 0.3, 0.6, 0.9], [0.4, 0.3, 0.2, 0.1]
    conditional = torch.tensor([[_log_odds(each) for each in p]], requires_grad=True)
    log_levels = torch.tensor([levels]).log().requires_grad_()
    fusion(conditional, log_levels).sum().backward()  # type: ignore[no-untyped-call]
    whole = sum(share * each for share, each in zip(levels, p, strict=True))
    of_conditional = [s * e * (1 - e) / (whole * (1 - whole)) for s, e in zip(levels, p, strict=True)]
    of_levels = [s * e / whole - s * (1 - e) / (1 - whole) for s, e in zip(levels, p, strict=True)]
    assert conditional.grad is not None
    assert log_levels.grad is not None
    assert conditional.grad[0].tolist() == pytest.approx(of_conditional, abs=1e-5)
    assert log_levels.grad[0].tolist() == pytest.approx(of_levels, abs=1e-5)


HUGE = 1e4


@pytest.mark.parametrize(
    ("conditional", "logits", "expected"),
    [
        ([HUGE] * 4, [0.0] * 4, HUGE),
        ([-HUGE] * 4, [0.0] * 4, -HUGE),
        ([HUGE, -HUGE, -HUGE, HUGE], [0.0] * 4, 0.0),
        ([-HUGE, -HUGE, -HUGE, HUGE], [0.0] * 4, math.log(1 / 3)),
        ([-2.0, -1.0, 1.0, 2.0], [HUGE, -HUGE, -HUGE, -HUGE], -2.0),
        ([-2.0, -1.0, 1.0, 2.0], [-HUGE, -HUGE, -HUGE, HUGE], 2.0),
        ([-HUGE, 0.0, 0.0, HUGE], [HUGE, 0.0, 0.0, -HUGE], math.log(2) - HUGE),
    ],
)
def test_a_sure_level_and_a_sure_click_overflow_nothing(
    conditional: list[float], logits: list[float], expected: float
) -> None:
    odds = torch.tensor([conditional], requires_grad=True)
    levels = torch.tensor([logits], requires_grad=True)
    fused = fusion(odds, torch.log_softmax(levels, dim=1))
    fused.sum().backward()  # type: ignore[no-untyped-call]
    assert fused.item() == pytest.approx(expected, rel=2e-7, abs=1e-5)
    assert odds.grad is not None
    assert levels.grad is not None
    assert bool(torch.isfinite(odds.grad).all())
    assert bool(torch.isfinite(levels.grad).all())


def test_a_level_that_cannot_be_gives_no_gradient_that_is_not_a_number() -> None:
    conditional = torch.tensor([[1.0, -1.0, 0.5, 3.0]], requires_grad=True)
    fusion(conditional, torch.tensor([[0.0, 1.0, 0.0, 0.0]]).log()).sum().backward()  # type: ignore[no-untyped-call]
    assert conditional.grad is not None
    assert conditional.grad[0].tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0], abs=1e-6)
