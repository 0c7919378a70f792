"""Hard negatives, the hinge, `prior_adjustment` and the soft target, on worked examples and by their statistics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit, softmax
from scipy.stats import chisquare, kstest

from prectr.model.models.prectr.debias import adjust_prior, hard_negatives, hinge_loss, soft_target_loss


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(levels=st.lists(st.integers(0, 3), min_size=1, max_size=40), seed=st.integers(0, 2**31))
def test_every_fake_level_is_lower_and_the_lowest_has_none(levels: list[int], seed: int) -> None:
    own = torch.tensor(levels)
    negatives = hard_negatives(torch.ones(len(levels), 8), own, 1.0, _random(seed))
    assert negatives.impression_index.tolist() == [index for index, level in enumerate(levels) if level > 0]
    for index, fake, gap in zip(
        negatives.impression_index.tolist(), negatives.fake_level.tolist(), negatives.level_gap.tolist(), strict=True
    ):
        assert 0 <= fake < levels[index]
        assert gap == levels[index] - fake
    assert negatives.noisy_embeddings.shape == (len(levels), 8)


@pytest.mark.parametrize("level", [2, 3])
def test_a_fake_level_is_drawn_evenly_from_those_below(level: int) -> None:
    negatives = hard_negatives(torch.zeros(6000, 1), torch.full((6000,), level), 1.0, _random(level))
    counts = np.bincount(negatives.fake_level.numpy(), minlength=level)
    assert len(counts) == level
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("length", [0.2, 30.0])
def test_noise_is_normal_and_as_large_as_the_embedding_says(scale: float, length: float) -> None:
    """Each of d numbers deviates by s·|e|/√d; so the noise is as long as s·|e|, about."""
    wide = torch.randn(400, 64, generator=_random(1))
    pair = wide / wide.norm(dim=1, keepdim=True) * length
    noise = (
        hard_negatives(pair, torch.ones(400, dtype=torch.int64), scale, _random(2)).noisy_embeddings - pair
    ).numpy()
    standard = (noise / (scale * length / math.sqrt(64))).ravel()
    assert kstest(standard, "norm").pvalue > 1e-3
    assert np.linalg.norm(noise, axis=1).mean() == pytest.approx(scale * length, rel=0.02)


def test_each_embedding_has_noise_of_its_own_length() -> None:
    pair = torch.tensor([[3.0] + [0.0] * 99, [0.0] * 99 + [300.0], [0.0] * 100])
    noise = hard_negatives(pair, torch.tensor([1, 1, 1]), 1.0, _random()).noisy_embeddings - pair
    assert noise[0].norm().item() == pytest.approx(3.0, rel=0.3)
    assert noise[1].norm().item() == pytest.approx(300.0, rel=0.3)
    assert noise[2].tolist() == [0.0] * 100


def test_one_generator_draws_the_same_again_and_another_draws_otherwise() -> None:
    pair, levels = torch.randn(50, 8, generator=_random(1)), torch.full((50,), 3)
    first, same, other = (hard_negatives(pair, levels, 1.0, _random(seed)) for seed in (7, 7, 8))
    assert torch.equal(first.noisy_embeddings, same.noisy_embeddings)
    assert torch.equal(first.fake_level, same.fake_level)
    assert not torch.equal(first.noisy_embeddings, other.noisy_embeddings)
    assert not torch.equal(first.fake_level, other.fake_level)


def test_the_embedding_learns_through_its_noise_even_where_it_is_zero() -> None:
    pair = torch.randn(5, 8, generator=_random(3))
    pair[2] = 0.0
    pair.requires_grad_()
    hard_negatives(pair, torch.full((5,), 2), 1.0, _random()).noisy_embeddings.sum().backward()  # type: ignore[no-untyped-call]
    assert pair.grad is not None
    assert bool(torch.isfinite(pair.grad).all())
    assert pair.grad.abs().sum(dim=1).min().item() > 0.1


def test_the_hinge_by_hand() -> None:
    """Margin 0.5 a level. Pairs: 1 level, s⁺−s⁻ = 0.2: 0.3; 2 levels, −0.4: 1.4; 1 level, 0.9: 0."""
    positive, negative = torch.tensor([0.2, -0.4, 1.9]), torch.tensor([0.0, 0.0, 1.0])
    gap = torch.tensor([1.0, 2.0, 1.0])
    loss = hinge_loss(positive, negative, gap, 0.5, 2.0)
    assert loss.item() == pytest.approx((0.3 + 1.4 + 0.0) / 3, abs=1e-6)


def test_the_margin_of_three_levels_is_that_of_two() -> None:
    zero = torch.zeros(1)
    of = [hinge_loss(zero, zero, torch.tensor([gap]), 0.5, 2.0).item() for gap in (1.0, 2.0, 3.0)]
    assert of == pytest.approx([0.5, 1.0, 1.0])


def test_pairs_that_are_further_wrong_than_the_truncation_are_left_out() -> None:
    """1 level: 0.5 − 0.1 = 0.4 counts; 0.5 + 3 = 3.5 does not, not in the mean either."""
    positive = torch.tensor([0.1, -3.0], requires_grad=True)
    loss = hinge_loss(positive, torch.zeros(2), torch.ones(2), 0.5, 2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.4, abs=1e-6)
    assert positive.grad is not None
    assert positive.grad.tolist() == [-1.0, 0.0]
    assert hinge_loss(positive, torch.zeros(2), torch.ones(2), 0.5, 4.0).item() == pytest.approx((0.4 + 3.5) / 2)


@given(
    pairs=st.lists(
        st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=20
    ),
    margin=st.floats(0, 2),
    truncation=st.floats(0.1, 6),
)
@settings(max_examples=50)
def test_the_hinge_is_a_mean_over_what_counts(
    pairs: list[tuple[float, float, float]], margin: float, truncation: float
) -> None:
    short = [max(0.0, min(margin * gap, 2 * margin) - (high - low)) for high, low, gap in pairs]
    if any(abs(each - truncation) < 1e-4 for each in short):
        return
    counted = [each for each in short if each < truncation]
    tensors = [torch.tensor(part) for part in zip(*pairs, strict=True)]
    expected = sum(counted) / max(len(counted), 1)
    assert hinge_loss(*tensors, margin, truncation).item() == pytest.approx(expected, abs=1e-5)


def test_where_nothing_counts_the_hinge_is_zero_and_can_be_learned_from() -> None:
    positive = torch.tensor([-9.0], requires_grad=True)
    hinge_loss(positive, torch.zeros(1), torch.ones(1), 0.5, 2.0).backward()  # type: ignore[no-untyped-call]
    assert positive.grad is not None
    assert positive.grad.tolist() == [0.0]
    empty = torch.zeros(0, requires_grad=True)
    loss = hinge_loss(empty, torch.zeros(0), torch.zeros(0), 0.5, 2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0


LOGITS = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, 0.0, -2.0]])
CANDIDATES = torch.tensor([0.6, 0.2, 0.15, 0.05])


def test_where_what_is_shown_is_like_the_candidates_nothing_shifts() -> None:
    shown = torch.tensor([True, False])
    levels = adjust_prior(LOGITS, CANDIDATES, CANDIDATES, shown).exp().numpy()
    assert levels == pytest.approx(softmax(LOGITS.numpy(), axis=1), abs=1e-6)


def test_the_shift_is_bayes_rule_on_a_table_of_candidates() -> None:
    """1,000 candidates with one text; a ranker shows 5, 10, 40 and 80 % of those of levels 1 to 4, overall.

    The text says how many are of each level; of those shown, as many of each as the shares say.
    """
    shows = np.array([0.05, 0.10, 0.40, 0.80])
    of_text = np.array([500.0, 300.0, 150.0, 50.0])
    expected = of_text * shows / (of_text * shows).sum()
    exposed = CANDIDATES.double().numpy() * shows
    exposed = torch.from_numpy(exposed / exposed.sum()).float()
    logits = torch.from_numpy(np.log(of_text) - 3.0).float()[None]
    levels = adjust_prior(logits, exposed, CANDIDATES, torch.tensor([True])).exp()[0]
    assert levels.numpy() == pytest.approx(expected, abs=1e-6)


def test_pairs_that_were_not_shown_are_left_as_they_are() -> None:
    exposed = torch.tensor([0.1, 0.2, 0.3, 0.4])
    both = adjust_prior(LOGITS, exposed, CANDIDATES, torch.tensor([True, False])).exp().numpy()
    moved = softmax(LOGITS.numpy() + np.log([0.1, 0.2, 0.3, 0.4]) - np.log([0.6, 0.2, 0.15, 0.05]), axis=1)
    assert both[0] == pytest.approx(moved[0], abs=1e-6)
    assert both[1] == pytest.approx(softmax(LOGITS.numpy()[1]), abs=1e-6)
    assert both.sum(axis=1) == pytest.approx([1.0, 1.0])


def test_the_shift_and_back_is_where_it_was() -> None:
    exposed, shown = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([True, True])
    there = adjust_prior(LOGITS, exposed, CANDIDATES, shown)
    back = adjust_prior(there, CANDIDATES, exposed, shown).exp().numpy()
    assert back == pytest.approx(softmax(LOGITS.numpy(), axis=1), abs=1e-6)


def test_the_soft_target_by_hand() -> None:
    """A click probability of 0.25 against a rate of 0.1: −0.1·ln ¼ − 0.9·ln ¾; one of ½ against 0.4: ln 2."""
    negative = torch.tensor([math.log(1 / 3), 0.0])
    expected = (-0.1 * math.log(0.25) - 0.9 * math.log(0.75) + math.log(2)) / 2
    assert soft_target_loss(negative, torch.tensor([0.1, 0.4])).item() == pytest.approx(expected, abs=1e-6)


def test_the_soft_target_draws_towards_the_rate_and_no_further() -> None:
    """Its gradient is (p − rate)/M: nothing at the rate, up below it, down above it."""
    rates = torch.tensor([0.05, 0.3, 0.2])
    negative = torch.tensor([float(logit(0.05)), float(logit(0.1)), float(logit(0.9))]).requires_grad_()
    soft_target_loss(negative, rates).backward()  # type: ignore[no-untyped-call]
    assert negative.grad is not None
    assert negative.grad.tolist() == pytest.approx([0.0, (0.1 - 0.3) / 3, (0.9 - 0.2) / 3], abs=1e-6)


def test_without_a_hard_negative_the_soft_target_is_zero_and_can_be_learned_from() -> None:
    nothing = torch.zeros(0, requires_grad=True)
    loss = soft_target_loss(nothing, torch.zeros(0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
