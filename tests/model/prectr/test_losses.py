"""Which losses prectr and prectr-v2 have, and what learns from them."""

import pytest
import torch

from prectr.model.text.encoder.artifact import load_encoder
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.model_cases import BOTH_MODELS, MODELS_AND_ABLATIONS, PAGES, ModelHarness, clicked_examples

LOSSES = {
    ("prectr", ""): {"click", "monotonicity", "stage_one_kl", "rehearsal"},
    ("prectr", "consistency"): {"click", "rehearsal"},
    ("prectr", "two-stage"): {"click", "monotonicity"},
    ("prectr", "incentive"): {"click", "monotonicity", "stage_one_kl", "rehearsal"},
    ("prectr", "aggregates"): {"click", "monotonicity", "stage_one_kl", "rehearsal"},
    ("prectr-v2", ""): {"click", "monotonicity", "stage_one_kl", "rehearsal", "debias"},
    ("prectr-v2", "cold-start"): {"click", "monotonicity", "stage_one_kl", "rehearsal", "debias"},
    ("prectr-v2", "debias"): {"click", "monotonicity", "stage_one_kl", "rehearsal"},
    ("prectr-v2", "consistency"): {"click", "rehearsal", "debias"},
    ("prectr-v2", "two-stage"): {"click", "monotonicity", "debias"},
    ("prectr-v2", "incentive"): {"click", "monotonicity", "stage_one_kl", "rehearsal", "debias"},
    ("prectr-v2", "aggregates"): {"click", "monotonicity", "stage_one_kl", "rehearsal", "debias"},
    # Without pre-training there is no stage one to stay near to.
    ("prectr-v2", "pretraining"): {"click", "monotonicity", "rehearsal", "debias"},
}


def test_every_switch_has_its_losses_here() -> None:
    assert set(LOSSES) == set(MODELS_AND_ABLATIONS)


@pytest.mark.parametrize(("name", "without"), MODELS_AND_ABLATIONS)
def test_each_switch_takes_away_its_own_losses(name: str, without: str) -> None:
    assert set(ModelHarness(name, without).train(PAGES).losses) == LOSSES[name, without]


def test_shift_alone_makes_no_hard_negatives() -> None:
    assert "debias" not in ModelHarness(debias="prior_adjustment").train(PAGES).losses
    assert "debias" in ModelHarness(debias="hinge").train(PAGES).losses


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_with_logged_levels_clicks_and_their_order_are_all_that_is_learned_from(name: str) -> None:
    assert set(ModelHarness(name, level_source="logged").train(PAGES).losses) == {"click", "monotonicity"}


IN_VAIN = {"encoder.levels.weight", "encoder.levels.bias"}
"""The level head of stage one: joint training has a head of its own."""
APART = {"encoder.query.weight", "encoder.query.bias", "encoder.item.weight", "encoder.item.bias"}
"""e_q·e_i is a feature without gradient."""
LEVEL_HEAD = {"relevance_head.weight", "relevance_head.bias"}
GLOBAL = {f"incentive.cold_start.attention.{name}.weight" for name in ("query", "key", "value", "age", "out")}
GATE = {"incentive.cold_start.gate.weight", "incentive.cold_start.gate.bias"}
NOT_JUDGED = {"incentive.cold_start.attention.overlap.weight"}
"""The clicks of a query are all for that query: their overlap is constant."""
CLICK_HEADS = {
    f"conditional.deep.{layer}.{kind}" for layer in ("hidden.0", "hidden.1", "out") for kind in ("weight", "bias")
}
TEXT = {"conditional.text.weight", "conditional.text.bias"}


def _learns(gradients: dict[str, float]) -> set[str]:
    """The parameters whose gradient is more than what rounding leaves of zero."""
    return {name for name, size in gradients.items() if size > 1e-9} - NOT_JUDGED


def _encoder_parts(names: set[str]) -> set[str]:
    # Attention does not change with the bias of its keys (softmax takes no notice): its gradient is rounding.
    return {name for name in names if name.startswith("encoder.") and not name.endswith("key.bias")}


@pytest.mark.parametrize(("name", "without"), MODELS_AND_ABLATIONS)
def test_gradients_flow_to_every_parameter_that_should_learn_and_to_no_other(name: str, without: str) -> None:
    learner = ModelHarness(name, without).trained()
    gradients = learner.gradients(clicked_examples(12, seed=60))
    there, learns = set(gradients) - NOT_JUDGED, _learns(gradients)
    of_incentive = {each for each in there if each.startswith("incentive.")}
    joint = name == "prectr-v2"
    assert {each for each in learns if not each.startswith("encoder.")} == {
        each for each in there if not each.startswith("encoder.")
    }
    assert there >= CLICK_HEADS | TEXT | LEVEL_HEAD
    assert ("aggregates.weight" in there) == (without != "aggregates")
    assert (of_incentive == set()) == (without == "incentive")
    assert (of_incentive >= GLOBAL | GATE) == (joint and without not in {"incentive", "cold-start"})
    assert not any("cold_start" in each for each in of_incentive) or joint
    assert any(each.startswith("encoder.") for each in there) == joint
    if joint:
        expected = _encoder_parts(there) - IN_VAIN - APART
        assert _encoder_parts(learns) == expected
        assert len(expected) > 20


@pytest.mark.parametrize(("name", "without"), MODELS_AND_ABLATIONS)
def test_every_table_learns(name: str, without: str) -> None:
    learner = ModelHarness(name, without).trained()
    batch = learner.batch(PAGES)
    gradients = learner.model.gradients(batch, learner.model.forward(batch))
    joint = name == "prectr-v2"
    mined = joint and without != "cold-start"
    tables = {"embedding", "position", "wide", "slope"} | ({"pair"} if mined else set())
    tables |= {"recency"} if mined and without != "aggregates" else set()
    assert set(gradients.tables) == tables
    assert set(gradients.state_updates) == {"pair_cache", "exposed_pairs"} | ({"exposure"} if mined else set())
    for table in tables:
        assert gradients.tables[table].values.abs().max().item() > 1e-6


def test_the_encoder_of_prectr_stays_as_stage_one_left_it() -> None:
    learner = ModelHarness("prectr").trained()
    folder = load_encoder(tiny_encoder()).network.state_dict()
    assert all(torch.equal(tensor, folder[name]) for name, tensor in learner.model.encoder.state_dict().items())


def test_the_encoder_of_prectr_v2_learns() -> None:
    learner = ModelHarness().trained()
    folder = load_encoder(tiny_encoder()).network.state_dict()
    moved = {
        name for name, tensor in learner.model.encoder.state_dict().items() if not torch.equal(tensor, folder[name])
    }
    assert {name.split(".")[0] for name in moved} == {"bert", "join", "norm"}


def test_the_cache_alone_leaves_the_encoder_where_it_is_but_for_replayed_pairs() -> None:
    learner = ModelHarness(encoder_share=0.0, rehearsal_pairs=0, rehearsal_weight=0.0, without="two-stage").trained()
    folder = load_encoder(tiny_encoder()).network.state_dict()
    assert all(torch.equal(tensor, folder[name]) for name, tensor in learner.model.encoder.state_dict().items())


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_with_logged_levels_the_level_head_learns_nothing(name: str) -> None:
    learner = ModelHarness(name, level_source="logged").trained()
    gradients = learner.gradients(clicked_examples(12, seed=60))
    for each in LEVEL_HEAD:
        assert gradients[each] == 0.0
    folder = load_encoder(tiny_encoder()).network
    assert torch.equal(learner.model.relevance_head.weight.detach(), folder.levels.weight)
    assert (_encoder_parts(_learns(gradients)) != set()) == (name == "prectr-v2")


@pytest.mark.parametrize(
    ("loss", "settings", "level_head", "click_heads"),
    [
        ("click", {}, True, True),
        ("monotonicity", {"monotonicity_weight": 0.01}, False, True),
        ("stage_one_kl", {}, True, False),
        ("rehearsal", {}, True, False),
        ("debias", {"debias": "prior_adjustment+soft"}, False, True),
        ("debias", {"debias": "hinge"}, True, True),
    ],
)
def test_each_loss_trains_its_own_parameters(
    loss: str, settings: dict[str, object], level_head: bool, click_heads: bool
) -> None:
    """Clicks teach levels, but not through a hard negative's fake one; KL and rehearsal teach nothing of clicks."""
    learner = ModelHarness(**settings).trained()  # type: ignore[arg-type]
    learns = _learns(learner.gradient_of(clicked_examples(12, seed=60), loss))
    assert (learns & LEVEL_HEAD == LEVEL_HEAD, learns & LEVEL_HEAD == set()) == (level_head, not level_head)
    assert (learns >= CLICK_HEADS, learns & (CLICK_HEADS | TEXT) == set()) == (click_heads, not click_heads)
    assert any(name.startswith("incentive") for name in learns) == click_heads
    assert _encoder_parts(learns) != set()
