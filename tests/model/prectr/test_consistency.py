"""The order of click probabilities and the anchor to stage one, on worked examples."""

import math

import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from prectr.model.models.prectr.consistency import monotonicity_loss, stage_one_kl


def _odds(*probabilities: float) -> list[float]:
    return [math.log(p / (1 - p)) for p in probabilities]


def test_a_fall_costs_as_much_as_the_probability_falls() -> None:
    """0.5 → 0.2 falls by 0.3, 0.2 → 0.6 rises, 0.6 → 0.5 falls by 0.1; the second falls by nothing."""
    conditional = torch.tensor([_odds(0.5, 0.2, 0.6, 0.5), _odds(0.1, 0.2, 0.3, 0.4)])
    assert monotonicity_loss(conditional).item() == pytest.approx((0.3 + 0.1) / 2, abs=1e-6)


def test_what_does_not_fall_costs_nothing_and_is_left_alone() -> None:
    conditional = torch.tensor([_odds(0.1, 0.1, 0.5, 0.9), _odds(0.3, 0.3, 0.3, 0.3)], requires_grad=True)
    loss = monotonicity_loss(conditional)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert conditional.grad is not None
    assert conditional.grad.abs().sum().item() == 0.0


def test_a_monotonicity_violation_is_corrected_from_both_ends() -> None:
    """∂/∂c₁ = p₁(1 − p₁) and ∂/∂c₂ = −p₂(1 − p₂) where level 2 is clicked less than level 1."""
    conditional = torch.tensor([_odds(0.6, 0.2, 0.7, 0.8)], requires_grad=True)
    monotonicity_loss(conditional).backward()  # type: ignore[no-untyped-call]
    assert conditional.grad is not None
    assert conditional.grad[0].tolist() == pytest.approx([0.6 * 0.4, -0.2 * 0.8, 0.0, 0.0], abs=1e-6)


def test_extreme_odds_cost_no_more_than_one_a_step() -> None:
    conditional = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    loss = monotonicity_loss(conditional)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(2.0)
    assert conditional.grad is not None
    assert bool(torch.isfinite(conditional.grad).all())


def test_the_anchor_is_the_divergence_of_now_from_stage_one() -> None:
    random = torch.Generator().manual_seed(5)
    first, now = torch.randn(6, 4, generator=random) * 2, torch.randn(6, 4, generator=random) * 2
    expected = [
        entropy(softmax(then), softmax(later)) for then, later in zip(first.tolist(), now.tolist(), strict=True)
    ]
    assert stage_one_kl(torch.log_softmax(now, dim=1), first).item() == pytest.approx(sum(expected) / 6, rel=1e-5)


def test_the_anchor_by_hand() -> None:
    """Stage one: ½, ½ (almost); now ¾, ¼ : ½·ln(½/¾) + ½·ln(½/¼) = ½·ln(4/3)."""
    sure = -40.0
    now = torch.tensor([[math.log(0.75), math.log(0.25), sure, sure]])
    loss = stage_one_kl(now, torch.tensor([[0.0, 0.0, sure, sure]]))
    assert loss.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)


def test_an_anchor_that_holds_costs_nothing_and_pulls_nowhere() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5, 0.0], [0.0, 9.0, -9.0, 1.0]], requires_grad=True)
    loss = stage_one_kl(torch.log_softmax(logits, dim=1), logits.detach() + 5.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-6


def test_the_anchor_pulls_the_distribution_back() -> None:
    """∂KL/∂logits = now − stage one, over the number of pairs."""
    first = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    logits = torch.zeros(2, 4, requires_grad=True)
    stage_one_kl(torch.log_softmax(logits, dim=1), first).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    for row in range(2):
        expected = (0.25 - softmax(first[row].numpy())) / 2
        assert logits.grad[row].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_an_anchor_to_what_is_all_but_sure_stays_finite() -> None:
    logits = torch.tensor([[-1e4, 1e4, 0.0, 0.0]], requires_grad=True)
    loss = stage_one_kl(torch.log_softmax(logits, dim=1), torch.tensor([[1e4, -1e4, 0.0, 0.0]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(-log_softmax([-1e4, 1e4, 0.0, 0.0])[0])
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
