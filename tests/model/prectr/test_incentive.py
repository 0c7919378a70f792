"""The relevance incentive: τ, gate and both attentions against loops over numbers that are known."""

import dataclasses
import math

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from prectr.model.features.batch import Batch, FeatureEncoder, FeatureNeeds
from prectr.model.features.smoothing import PriorRates
from prectr.model.models.prectr.cold_start import ColdStartMining
from prectr.model.models.prectr.incentive import RelevanceIncentive
from prectr.model.models.prectr.preference import Clicks
from prectr.stream.records import Example, QueryClick
from tests.kit.models.examples import random_examples

DIM, NUMBERS = 5, 3
WIDTH = 16


def _page(example: Example, clicks: list[QueryClick]) -> Example:
    return msgspec.structs.replace(example, query_clicks=msgspec.Raw(msgspec.msgpack.encode(clicks)))


def _batch(seed: int = 0) -> Batch:
    """Six pages; the query of the last has no click, the others' have one to five, some days old."""
    random = np.random.default_rng(seed)
    pages = []
    for number, example in enumerate(random_examples(6, seed=seed)):
        clicks = [
            QueryClick(
                example.ts - int(random.integers(1, 10**9)), f"item {k}", int(random.integers(1, 5)), None, None, 1.0
            )
            for k in range((number + 1) % 6)
        ]
        pages.append(_page(example, clicks))
    return FeatureEncoder().encode(pages, PriorRates(64, 20.0), FeatureNeeds(query_history=True))


def _untrained(*, columns: int = NUMBERS, cold_start: bool = True, seed: int = 3) -> RelevanceIncentive:
    return RelevanceIncentive(DIM, columns, cold_start, torch.Generator().manual_seed(seed))


def _random(seed: int = 1, columns: int = NUMBERS) -> RelevanceIncentive:
    """Parameters that are all different, as if learned."""
    part = _untrained(columns=columns)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.6)
    return part


def _cold_start(part: RelevanceIncentive) -> ColdStartMining:
    assert part.cold_start is not None
    return part.cold_start


def _user_clicks(batch: Batch, clicked: Tensor) -> Clicks:
    history = batch.history
    return Clicks(clicked, history.page_of, history.level, history.age_days, history.query_overlap)


def _query_clicks(batch: Batch, clicked: Tensor) -> Clicks:
    history = batch.query_history
    return Clicks(clicked, history.page_of, history.level, history.age_days, np.zeros(len(history.item)))


def _user_preference(part: RelevanceIncentive, batch: Batch, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    query, clicked, features = inputs
    preference: Tensor = part.user(batch, query, _user_clicks(batch, clicked), features)
    return preference


def _global_preference(part: RelevanceIncentive, batch: Batch, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    query, clicked, features = inputs
    preference: Tensor = _cold_start(part).attention(batch, query, _query_clicks(batch, clicked), features)
    return preference


def _inputs(batch: Batch, clicks: int, seed: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = ((batch.pages, DIM), (clicks, DIM), (batch.impressions, NUMBERS))
    query, clicked, numbers = (torch.randn(*size, generator=random) for size in sizes)
    return query, clicked, numbers


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_at_the_start_no_relevance_is_preferred_whatever_the_user() -> None:
    for cold_start in (True, False):
        part = _untrained(cold_start=cold_start)
        preference = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(0)) * 10
        assert part.log_odds(preference).tolist() == [[0.0] * 4] * 20


def test_tau_is_the_mixture_of_both_experts_by_hand() -> None:
    """r = 2 in its first place alone: f₊ = 2w + b, and so on; m₊ is the sigmoid of the mixture's difference."""
    part = _untrained()
    with torch.no_grad():
        part.positive.weight[:, 0] = torch.tensor([0.0, 0.5, 1.0, 1.5])
        part.positive.bias.copy_(torch.tensor([0.1, 0.0, 0.0, -1.0]))
        part.negative.weight[:, 0] = torch.tensor([1.0, 0.0, -1.0, -3.0])
        part.negative.bias.copy_(torch.tensor([0.0, 0.2, 0.0, 0.0]))
        part.mixture.weight[:, 0] = torch.tensor([0.4, -0.1])
    preference = torch.zeros(1, WIDTH)
    preference[0, 0] = 2.0
    share = 1 / (1 + math.exp(-(2 * 0.4 + 2 * 0.1)))
    positive, negative = (0.1, 1.0, 2.0, 2.0), (2.0, 0.2, -2.0, -6.0)
    expected = [share * _softplus(p) - (1 - share) * _softplus(n) for p, n in zip(positive, negative, strict=True)]
    assert part.log_odds(preference)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_positive_expert_only_adds_and_the_negative_only_takes_away() -> None:
    part = _random()
    preference = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(0))
    rows = [expert(preference).detach().double().numpy() for expert in (part.positive, part.negative)]
    most, least = np.log1p(np.exp(rows[0])), -np.log1p(np.exp(rows[1]))
    tau = part.log_odds(preference).detach().double().numpy()
    assert (tau < most).all()
    assert (tau > least).all()
    assert (tau > 0.1).any()
    assert (tau < -0.1).any()
    for favoured, sign in ((0, 1), (1, -1)):
        with torch.no_grad():
            part.mixture.weight.zero_()
            part.mixture.weight[favoured] = 1e3 * torch.sign(preference[0])
        only = part.log_odds(preference[:1]).detach().double().numpy()
        assert (sign * only > 0).all()
        assert only[0] == pytest.approx((most if sign > 0 else least)[0], rel=1e-5)


def test_extreme_preferences_stay_finite() -> None:
    part = _random()
    preference = torch.tensor([[1e4] * WIDTH, [-1e4] * WIDTH], requires_grad=True)
    tau = part.log_odds(preference)
    tau.sum().backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(tau).all())
    assert preference.grad is not None
    assert bool(torch.isfinite(preference.grad).all())


def test_the_gate_listens_to_both_alike_before_it_has_learned() -> None:
    batch = _batch()
    part = _untrained()
    assert _cold_start(part).activity_gate(batch).tolist() == [[0.5]] * batch.impressions


def test_the_gate_by_hand() -> None:
    """σ(w·0.3·ln(1 + counts) + b) of clicks, of the user's impressions and of the query's."""
    batch = _batch()
    part = _random()
    gate = _cold_start(part).gate
    assert gate.bias is not None
    weight, bias = gate.weight.tolist()[0], gate.bias.tolist()[0]
    share = _cold_start(part).activity_gate(batch)
    assert share.shape == (batch.impressions, 1)
    assert len(set(batch.user_activity.tolist())) > 2
    for n, page in enumerate(batch.page_of.tolist()):
        example = batch.examples[page]
        counts = (example.user_activity, sum(example.user_stats[:4]), sum(example.query_stats[:4]))
        score = sum(w * 0.3 * math.log(1 + count) for w, count in zip(weight, counts, strict=True)) + bias
        assert share[n].item() == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-6)


def test_a_gate_that_has_learned_activity_leans_on_the_query_for_a_new_user() -> None:
    part = _untrained()
    mining = _cold_start(part)
    assert mining.gate.bias is not None
    with torch.no_grad():
        mining.gate.weight[0, 0] = 4.0
        mining.gate.bias.fill_(-3.0)
    batch = _batch()
    new = dataclasses.replace(batch, user_activity=np.zeros_like(batch.user_activity))
    active = dataclasses.replace(batch, user_activity=np.full_like(batch.user_activity, 100))
    assert mining.activity_gate(new).max().item() < 0.06
    assert mining.activity_gate(active).min().item() > 0.9


def _by_loops(
    of: str,
    heads: int,
    batch: Batch,
    inputs: tuple[Tensor, Tensor, Tensor],
    overlaps: list[float],
    part: RelevanceIncentive,
) -> np.ndarray:
    """float64[N, 16]: each page over its own clicks, one click and one head after the other."""
    query, clicked, numbers = (each.double().numpy() for each in inputs)
    attention = part.user if of == "user" else _cold_start(part).attention
    to_query, to_key, to_value, by_age, by_overlap, out = (
        getattr(attention, name).weight.detach().double().numpy()
        for name in ("query", "key", "value", "age", "overlap", "out")
    )
    history = batch.history if of == "user" else batch.query_history
    width = WIDTH // heads
    attended = np.zeros((batch.pages, WIDTH))
    for page in range(batch.pages):
        own = [click for click, of_page in enumerate(history.page_of.tolist()) if of_page == page]
        asked = to_query @ query[page]
        values = {c: to_value @ np.concatenate([clicked[c], np.eye(4)[history.level[c] - 1]]) for c in own}
        for head in range(heads):
            span = slice(head * width, (head + 1) * width)
            weights = {}
            for c in own:
                score = float(asked[span] @ (to_key @ clicked[c])[span]) / math.sqrt(width)
                score += by_age[head, 0] * math.log1p(history.age_days[c]) + by_overlap[head, 0] * overlaps[c]
                weights[c] = math.exp(8 * math.tanh(score / 8))
            for c in own:
                attended[page, span] += weights[c] / sum(weights.values()) * values[c][span]
    return np.stack(
        [out @ np.concatenate([attended[page], numbers[n]]) for n, page in enumerate(batch.page_of.tolist())]
    )


def test_user_attention_agrees_with_loops_over_past_clicks() -> None:
    batch, part = _batch(), _random()
    overlaps = np.random.default_rng(6).random(len(batch.history.item))
    batch = dataclasses.replace(batch, history=dataclasses.replace(batch.history, query_overlap=overlaps))
    inputs = _inputs(batch, len(overlaps))
    expected = _by_loops("user", 1, batch, inputs, overlaps.tolist(), part)
    assert _user_preference(part, batch, inputs).detach().numpy() == pytest.approx(expected, abs=1e-4)


def test_query_attention_agrees_with_loops_over_the_querys_clicks_with_two_heads() -> None:
    batch, part = _batch(), _random()
    clicks = len(batch.query_history.item)
    inputs = _inputs(batch, clicks)
    expected = _by_loops("global", 2, batch, inputs, [0.0] * clicks, part)
    assert _global_preference(part, batch, inputs).detach().numpy() == pytest.approx(expected, abs=1e-4)


def test_who_has_not_clicked_is_known_by_numbers_alone() -> None:
    batch, part = _batch(), _random()
    inputs = _inputs(batch, len(batch.query_history.item))
    preference, numbers = _global_preference(part, batch, inputs).detach(), inputs[2]
    silent = torch.from_numpy(batch.page_of == 5)
    assert int(silent.sum()) > 0
    out = _cold_start(part).attention.out.weight.detach()[:, WIDTH:]
    assert torch.allclose(preference[silent], numbers[silent] @ out.T, atol=1e-5)


def test_a_batch_without_any_click_is_known_by_numbers_alone() -> None:
    examples = [_page(example, []) for example in random_examples(3, seed=2)]
    batch = FeatureEncoder().encode(examples, PriorRates(64, 20.0), FeatureNeeds(history=False, query_history=True))
    part = _random()
    inputs = _inputs(batch, 0)
    for attention, preference in ((part.user, _user_preference), (_cold_start(part).attention, _global_preference)):
        expected = inputs[2] @ attention.out.weight.detach()[:, WIDTH:].T
        assert torch.allclose(preference(part, batch, inputs).detach(), expected, atol=1e-5)


def test_without_cold_start_there_is_nothing_of_other_users() -> None:
    names, whole = set(_untrained(cold_start=False).state_dict()), set(_untrained().state_dict())
    assert names < whole
    assert {name.rpartition(".")[0] for name in whole - names} == {
        "cold_start.gate",
        *(f"cold_start.attention.{layer}" for layer in ("query", "key", "value", "age", "overlap", "out")),
    }
    assert not any("cold_start" in name for name in names)


def test_without_aggregates_only_clicks_are_attended_to() -> None:
    batch, part = _batch(), _random(columns=0)
    query, clicked, _ = _inputs(batch, len(batch.history.item))
    preference = _user_preference(part, batch, (query, clicked, torch.zeros(batch.impressions, 0)))
    assert preference.shape == (batch.impressions, WIDTH)
    newcomer = torch.from_numpy((batch.user_activity == 0)[batch.page_of])
    assert bool(newcomer.any())
    assert preference[newcomer].abs().sum().item() == 0.0
    assert preference[~newcomer].abs().sum().item() > 0.1


def test_every_attention_parameter_learns() -> None:
    """Of a user's preference and of all users'; a query's clicks have no overlap to weigh."""
    batch, part = _batch(), _random()
    own = _user_preference(part, batch, _inputs(batch, len(batch.history.item)))
    all_users = _global_preference(part, batch, _inputs(batch, len(batch.query_history.item)))
    share = _cold_start(part).activity_gate(batch)
    (part.log_odds(share * own + (1 - share) * all_users) ** 2).sum().backward()  # type: ignore[no-untyped-call]
    silent = {name for name, each in part.named_parameters() if not _gradient_size(each) > 1e-6}
    assert silent <= {"cold_start.attention.overlap.weight"}


def _gradient_size(parameter: Tensor) -> float:
    assert parameter.grad is not None
    return float(parameter.grad.abs().sum())


def test_at_the_start_both_experts_and_their_mixture_learn_at_once() -> None:
    part = _untrained()
    batch = _batch()
    own = _user_preference(part, batch, _inputs(batch, len(batch.history.item)))
    part.log_odds(own)[:, 3].sum().backward()  # type: ignore[no-untyped-call]
    of_bias = [expert.bias.grad.tolist() for expert in (part.positive, part.negative)]  # type: ignore[union-attr]
    # τ₄ rises with the positive expert and falls with the negative one: ½·σ(0) of each impression.
    assert of_bias[0] == pytest.approx([0, 0, 0, batch.impressions / 4])
    assert of_bias[1] == pytest.approx([0, 0, 0, -batch.impressions / 4])
    assert part.positive.weight.grad is not None
    assert part.positive.weight.grad[3].abs().sum().item() > 0
    assert _gradient_size(part.mixture.weight) > 0
