"""The state of prectr and prectr-v2: what changes nothing, and what makes two models the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prectr.model.models.prectr.model import Prectr
from prectr.model.training.trainer import Trainer
from prectr.state.errors import CheckpointError, TrainingError
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import small_config
from tests.kit.models.model_cases import (
    BOTH_MODELS,
    MODELS_AND_ABLATIONS,
    PAGES,
    ModelHarness,
    clicked_examples,
    copy_tensors,
)
from tests.kit.models.threads import run_on_ranks


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor.nan_to_num(7.0), other[name].nan_to_num(7.0))
        if tensor.is_floating_point()
        else torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )


@pytest.mark.parametrize(
    ("name", "without", "share"), [*((*each, 1.0) for each in MODELS_AND_ABLATIONS), ("prectr-v2", "", 0.3)]
)
def test_a_forward_pass_a_score_and_its_explanation_change_nothing(name: str, without: str, share: float) -> None:
    learner = ModelHarness(name, without, encoder_share=share).trained()
    before = copy_tensors(learner.model.training_state())
    batch = learner.batch(clicked_examples(5, seed=70))
    learner.model.forward(batch)
    learner.model.score(batch)
    learner.model.mixture(batch.at_position(1))
    assert _same(learner.model.training_state(), before)
    learner.train(clicked_examples(5, seed=70))
    changed = {
        part
        for part in learner.model.training_state()
        if not _same({part: learner.model.training_state()[part]}, {part: before[part]})
        if learner.model.training_state()[part].shape == before[part].shape
    }
    assert {"dense.values", "pair_cache.step", "exposed_pairs.bits"} <= changed


@pytest.mark.parametrize("name", BOTH_MODELS)
@pytest.mark.parametrize("poisoned", ["conditional.text.bias", "relevance_head.bias", "conditional.deep.hidden.0.bias"])
def test_a_loss_that_is_not_finite_leaves_weights_caches_and_what_was_shown_untouched(name: str, poisoned: str) -> None:
    trainer = Trainer(small_config(model=name, batch_span=1e9, encoder_share=0.3))
    examples = clicked_examples(12, seed=7)
    trainer.consume(examples[:8], 0)
    model = trainer._model
    assert isinstance(model, Prectr)
    with torch.no_grad():
        model.get_parameter(poisoned).fill_(torch.nan)
    before, parents = (
        copy_tensors(model.training_state()),
        (trainer._prior_rates.impressions.copy(), trainer._prior_rates.clicks.copy()),
    )
    with pytest.raises(TrainingError, match=r"loss.*'r00008', 'r00009', 'r00010', 'r00011'"):
        trainer.consume(examples[8:], 0)
    assert _same(model.training_state(), before)
    assert np.array_equal(trainer._prior_rates.impressions, parents[0])
    assert np.array_equal(trainer._prior_rates.clicks, parents[1])
    assert trainer.batches == 2


SMALL = {"encoder_share": 0.3, "pair_cache_size": 24, "pair_refresh": 3, "exposed_pairs_bits": 64, "batch_span": 1e9}


@pytest.mark.parametrize(
    ("name", "without"),
    [("prectr", ""), ("prectr-v2", ""), ("prectr-v2", "debias"), ("prectr-v2", "pretraining"), ("prectr-v2", "hinge")],
)
def test_a_resumed_model_ends_like_an_undisturbed_one_bit_for_bit(name: str, without: str, tmp_path: Path) -> None:
    """Stopped with a batch half full; the caches are small, so pairs are lost and encoded again."""
    settings: dict[str, object] = (
        {"debias": "hinge"} if without == "hinge" else {"without": (without,) if without else ()}
    )
    config = small_config(model=name, **SMALL, **settings)
    examples = clicked_examples(22, seed=9)
    undisturbed = Trainer(config)
    undisturbed.consume(examples, 0)
    undisturbed.flush()
    first = Trainer(config)
    first.consume(examples[:14], 0)
    first.save(tmp_path)
    resumed = Trainer(config)
    resumed.load(tmp_path)
    resumed.consume(examples[14:], 0)
    resumed.flush()
    assert _same(resumed._model.training_state(), undisturbed._model.training_state())
    assert resumed.weights_sha256() == undisturbed.weights_sha256()
    assert resumed.quality.state() == undisturbed.quality.state()
    assert np.array_equal(resumed.score(PAGES), undisturbed.score(PAGES))
    assert resumed.batches == 6


def test_another_encoder_under_the_same_name_is_refused() -> None:
    learner, other = ModelHarness().trained(), ModelHarness(encoder=str(tiny_encoder(1)))
    with pytest.raises(CheckpointError, match="trained with encoder"):
        other.model.load_training_state(learner.model.training_state())


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_ranks_hold_one_model_caches_and_what_was_shown_included(name: str) -> None:
    config = small_config(model=name, batch_pages=5, **{**SMALL, "batch_span": 100.0})
    examples = clicked_examples(15, seed=3)

    def work(ranks: object) -> Trainer:
        trainer = Trainer(config, process_group=ranks)  # type: ignore[arg-type]
        trainer.consume(examples, 0)
        trainer.flush()
        return trainer

    trainers = run_on_ranks(3, work)
    assert _same(trainers[1]._model.training_state(), trainers[0]._model.training_state())
    assert _same(trainers[2]._model.training_state(), trainers[0]._model.training_state())
    alone = Trainer(config)
    alone.consume(examples, 0)
    alone.flush()
    bits = [trainer._model.training_state()["exposed_pairs.bits"] for trainer in (trainers[0], alone)]
    assert torch.equal(*bits)
