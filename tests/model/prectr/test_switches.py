"""What each switch of prectr and prectr-v2 promises, and what no score may see."""

import dataclasses
import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch

from prectr.model.models.registry import make_model
from prectr.model.text.encoder.artifact import load_encoder
from prectr.state.errors import ConfigError
from prectr.stream.records import Example, QueryClick
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import small_config
from tests.kit.models.model_cases import BOTH_MODELS, CPU, MODELS_AND_ABLATIONS, PAGES, ModelHarness, level_shares


def _other_counts(example: Example, of: str, kinds: str) -> Example:
    """The same page with other impressions or clicks by level, of its `query` or `user`."""
    before = getattr(example, f"{of}_stats")
    shown, clicks = list(before[:4]), list(before[4:])
    if "impressions" in kinds:
        shown = [count + 40 * (level + 1) for level, count in enumerate(shown)]
    if "clicks" in kinds:
        clicks = [
            max(0, count - 2) if level < 2 else count + (shown[level] - count) // 2
            for level, count in enumerate(clicks)
        ]
    return msgspec.structs.replace(example, **{f"{of}_stats": (*shown, *clicks)})


def _other_query_clicks(example: Example) -> Example:
    clicks = [QueryClick(example.ts - 5000 * k, f"item {k}", 1 + k % 4, "category 0", None, 80.0) for k in range(9)]
    return msgspec.structs.replace(example, query_clicks=msgspec.Raw(msgspec.msgpack.encode(clicks)))


def _changed(learner: ModelHarness, change: Callable[[Example], Example]) -> float:
    """How far scores move when pages are changed so."""
    before, after = learner.score(PAGES), learner.score([change(example) for example in PAGES])
    return (after - before).abs().max().item()


def test_cold_start_is_all_that_reads_what_all_users_did_for_the_query() -> None:
    whole, without, first = (
        ModelHarness(*of).trained() for of in (("prectr-v2",), ("prectr-v2", "cold-start"), ("prectr",))
    )
    changes: list[Callable[[Example], Example]] = [
        _other_query_clicks,
        lambda example: _other_counts(example, "query", "impressions"),
        lambda example: _other_counts(example, "query", "clicks"),
    ]
    for change in changes:
        assert _changed(whole, change) > 1e-4
        assert _changed(without, change) == 0.0
        assert _changed(first, change) == 0.0
    assert _changed(without, lambda example: _other_counts(example, "user", "clicks")) > 1e-4
    assert _changed(first, lambda example: _other_counts(example, "user", "clicks")) > 1e-4


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_aggregates_are_all_that_reads_click_rates_by_level(name: str) -> None:
    """By how much the score follows the clicks of query, user and category."""
    whole, without = ModelHarness(name).trained(), ModelHarness(name, "aggregates").trained()
    for of in ("query", "user") if name == "prectr-v2" else ("user",):
        assert _changed(whole, lambda example, of=of: _other_counts(example, of, "clicks")) > 1e-4  # type: ignore[misc]
        assert _changed(without, lambda example, of=of: _other_counts(example, of, "clicks")) == 0.0  # type: ignore[misc]
    before = [learner.score(PAGES) for learner in (whole, without)]
    for learner in (whole, without):
        learner.parents.clicks += learner.parents.impressions * 0.3
        learner.parents.load_counts(learner.parents.impressions, learner.parents.clicks)
    assert not torch.allclose(whole.score(PAGES), before[0], atol=1e-4)
    assert torch.equal(without.score(PAGES), before[1])


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_without_incentive_there_is_no_level_preference(name: str) -> None:
    whole, without = ModelHarness(name).trained(), ModelHarness(name, "incentive").trained()
    batch = whole.batch(PAGES)
    tau = whole.model.mixture(batch).inputs.incentive
    assert tau.abs().max().item() > 1e-3
    assert (tau[:, 3] - tau[:, 0]).abs().max().item() > 1e-4
    assert without.model.mixture(without.batch(PAGES)).inputs.incentive.abs().max().item() == 0.0
    other = dataclasses.replace(
        batch,
        history=dataclasses.replace(batch.history, level=5 - batch.history.level, age_days=batch.history.age_days + 9),
    )
    assert not torch.allclose(whole.model.score(other), whole.model.score(batch), atol=1e-5)
    assert torch.equal(without.model.score(other), without.model.score(batch))
    assert _changed(without, _other_query_clicks) == 0.0


def test_debias_distinguishes_exposed_from_unexposed_pairs() -> None:
    """With `prior_adjustment`, P(level) of exposed pairs is stage one's, times exposed over candidate shares.

    Other pairs are not adjusted. Exposed shares are those of the query, smoothed towards those of everything.
    """
    whole, without = ModelHarness(exposure="off").trained(), ModelHarness(without="debias", exposure="off").trained()
    for learner in (whole, without):
        learner.parents.impressions[0] += [0.0, 0.0, 500.0, 3000.0]
        learner.parents.load_counts(learner.parents.impressions, learner.parents.clicks)
    batch = whole.batch(PAGES)
    unseen = dataclasses.replace(batch.at_position(1), item=batch.item + np.uint64(77))
    there = whole.model.mixture(batch).log_levels.exp()
    elsewhere = whole.model.mixture(unseen).log_levels.exp()
    of_query = batch.rates.query_impressions + 20.0 * batch.rates.exposed_level_shares
    ratio = torch.from_numpy(of_query / of_query.sum(axis=1, keepdims=True) / level_shares()).float()
    expected = elsewhere * ratio / (elsewhere * ratio).sum(dim=1, keepdim=True)
    assert torch.allclose(there, expected, atol=1e-5)
    assert (there - elsewhere).abs().max().item() > 0.2
    of_plain = [without.model.mixture(each).log_levels for each in (batch, unseen)]
    assert torch.equal(*of_plain)


@pytest.mark.parametrize("debias", ["hinge", "prior_adjustment", "prior_adjustment+soft"])
def test_only_shift_changes_levels_of_what_was_shown(debias: str) -> None:
    learner = ModelHarness(debias=debias, exposure="off").trained()
    batch = learner.batch(PAGES)
    unseen = dataclasses.replace(batch.at_position(1), item=batch.item + np.uint64(77))
    same = torch.equal(learner.model.mixture(batch).log_levels, learner.model.mixture(unseen).log_levels)
    assert same == (debias == "hinge")


def test_a_candidate_shifts_once_it_has_been_shown_for_the_query() -> None:
    learner = ModelHarness(exposed_pairs_bits=1 << 20).trained()
    for ranking in (False, True):
        batch = learner.batch(PAGES)
        candidates = batch.at_position(1)
        levels = [learner.model.mixture(each).log_levels for each in (candidates, batch)]
        assert torch.allclose(*levels, atol=1e-6) == ranking
        if not ranking:
            before = learner.parents.clicks.copy(), learner.parents.impressions.copy()
            learner.train(PAGES)
            learner.parents.load_counts(before[1], before[0])


def test_exposure_counts_as_relevance_and_only_through_cold_start_mining() -> None:
    """An item that has filled every page of a query, against one that was on one of them; same text, same position."""
    for without, matters in (("", True), ("cold-start", False)):
        learner = ModelHarness(without=without)
        batch = learner.batch(PAGES)
        often = dataclasses.replace(batch, item=np.full_like(batch.item, 7))
        rare = dataclasses.replace(batch, item=np.full_like(batch.item, 8))
        for each in (rare, *[often] * 20):
            learner.model.step(learner.model.gradients(each, learner.model.forward(each)))
        steps = torch.tensor([1.0, 2.0, 3.0, 4.0])
        of_often, of_rare = (learner.model.mixture(each).log_levels.exp() @ steps for each in (often, rare))
        assert bool((of_often > of_rare + 0.1).all()) is matters
        assert bool(torch.allclose(of_often, of_rare)) is not matters


def test_exposure_needs_a_model_that_uses_it() -> None:
    assert "exposure.level.weight" in ModelHarness().model.state_dict()
    assert "exposure.level.weight" not in ModelHarness(exposure="off").model.state_dict()
    with pytest.raises(ConfigError, match=r"exposure=on is for wide-deep\+, prectr-v2"):
        make_model(small_config(model="prectr", exposure="on"), CPU)


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_two_stage_starts_with_the_levels_of_stage_one(name: str) -> None:
    network, tokenizer = load_encoder(tiny_encoder()).network, load_encoder(tiny_encoder()).tokenizer
    for without, same in (("", True), ("two-stage", False)):
        learner = ModelHarness(name, without)
        batch = learner.batch(PAGES).at_position(1)
        levels = learner.model.mixture(batch).log_levels
        with torch.no_grad():
            expected = torch.log_softmax(network(tokenizer.encode(list(batch.texts))).level_logits, dim=1)
        assert torch.allclose(levels, expected if same else torch.full_like(levels, math.log(0.25)), atol=1e-5)
        assert not torch.allclose(expected, torch.full_like(levels, math.log(0.25)), atol=1e-2)


def test_pretraining_is_the_encoders_weights_at_the_start() -> None:
    folder = load_encoder(tiny_encoder()).network.state_dict()
    whole, without, seeded = (
        ModelHarness(),
        ModelHarness(without="pretraining"),
        ModelHarness(without="pretraining", seed=5),
    )
    start = whole.model.encoder.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in folder.items())
    words = "bert.embeddings.word_embeddings.weight"
    fresh = [learner.model.encoder.state_dict()[words] for learner in (without, seeded)]
    assert fresh[0].shape == folder[words].shape
    assert not torch.equal(fresh[0], folder[words])
    assert not torch.equal(fresh[0], fresh[1])


@pytest.mark.parametrize(("name", "without"), MODELS_AND_ABLATIONS)
def test_a_score_sees_neither_logged_levels_nor_labels(name: str, without: str) -> None:
    learner = ModelHarness(name, without).trained()
    batch = learner.batch(PAGES)
    other = dataclasses.replace(
        batch, levels=5 - batch.levels, labels=1 - batch.labels, level_weights=batch.level_weights[:, ::-1].copy()
    )
    assert torch.equal(learner.model.score(other), learner.model.score(batch))
    assert torch.equal(learner.model.forward(other).logits, learner.model.forward(batch).logits)


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_with_logged_levels_it_is_the_logged_level_that_counts(name: str) -> None:
    learner = ModelHarness(name, level_source="logged").trained()
    batch = learner.batch(PAGES)
    explained = learner.model.mixture(batch)
    own = explained.conditional_logits.gather(1, torch.from_numpy(batch.levels.astype(np.int64) - 1)[:, None])[:, 0]
    assert torch.allclose(explained.log_odds, own, atol=1e-3)
