"""prectr and prectr-v2 against the same model written out impression by impression."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from prectr.model.models.prectr.model import Prectr
from prectr.model.text.encoder.artifact import load_encoder
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import small_config
from tests.kit.models.model_cases import BOTH_MODELS, CPU, MODELS_AND_ABLATIONS, PAGES, PRIOR, ModelHarness
from tests.model.prectr.written_out import WrittenOut


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_scores_are_those_of_the_model_written_out(name: str) -> None:
    learner = ModelHarness(name).trained()
    batch = learner.batch(PAGES)
    expected = WrittenOut(learner, batch, learner.model.weights(), learner.model.encoder).log_odds().detach()
    assert float(expected.std()) > 0.05
    assert torch.allclose(learner.model.score(batch), expected, atol=3e-4 if name == "prectr" else 3e-5)
    assert torch.allclose(learner.model.forward(batch).logits, expected, atol=3e-4 if name == "prectr" else 3e-5)


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_gradients_of_the_click_loss_are_those_of_the_model_written_out(name: str) -> None:
    learner = ModelHarness(name).trained()
    batch = learner.batch(PAGES)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in learner.model.weights().items()}
    network = load_encoder(tiny_encoder()).network
    network.load_state_dict(learner.model.encoder.state_dict())
    clicks = torch.from_numpy(batch.labels.astype(np.float32))
    expected = WrittenOut(learner, batch, weights, network).log_odds()
    torch.nn.functional.binary_cross_entropy_with_logits(expected, clicks).backward()
    learner.model.zero_grad(set_to_none=False)
    forward = learner.model.forward(batch)
    forward.losses["click"].backward()  # type: ignore[no-untyped-call]
    of_network = {f"encoder.{name}": parameter.grad for name, parameter in network.named_parameters()}
    for each, parameter in learner.model.named_parameters():
        if not parameter.requires_grad:
            continue
        wanted = of_network[each] if each.startswith("encoder.") else weights[f"dense.{each}"].grad
        seen = parameter.grad
        assert seen is not None
        assert torch.allclose(seen, torch.zeros_like(seen) if wanted is None else wanted, atol=2e-5), each
    for table, gathered in forward.gathered.items():
        of_table = weights[f"table.{table}"].grad
        assert of_table is not None
        assert gathered.values.grad is not None
        assert torch.allclose(gathered.values.grad, of_table[gathered.indices], atol=2e-5), table
        assert float(of_table.abs().sum()) == pytest.approx(float(gathered.values.grad.abs().sum()), rel=1e-2)


@pytest.mark.parametrize(("name", "without"), MODELS_AND_ABLATIONS)
def test_at_the_start_a_click_is_as_likely_as_the_prior_says(name: str, without: str) -> None:
    assert ModelHarness(name, without).score(PAGES).tolist() == pytest.approx(
        [PRIOR] * len(ModelHarness().score(PAGES)), abs=1e-5
    )


def test_what_explains_a_score_adds_up_to_it() -> None:
    learner = ModelHarness().trained()
    batch = learner.batch(PAGES)
    explained = learner.model.mixture(batch)
    levels = explained.log_levels.double().exp().numpy()
    click = (levels * expit(explained.conditional_logits.double().numpy())).sum(axis=1)
    assert levels.sum(axis=1) == pytest.approx(np.ones(batch.impressions), abs=1e-6)
    assert torch.equal(explained.log_odds, learner.model.score(batch))
    assert explained.log_odds.numpy() == pytest.approx(np.log(click / (1 - click)), abs=1e-5)
    assert explained.inputs.incentive.shape == (batch.impressions, 4)


def test_a_model_is_built_without_file_access(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = load_encoder(tiny_encoder())

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a constructor opens {arguments}")

    for name in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr("builtins.open", refuse)
    for name in BOTH_MODELS:
        config = small_config(model=name, encoder="/nowhere")
        assert Prectr(config, CPU, artifact).indices


@pytest.mark.parametrize(("name", "without"), MODELS_AND_ABLATIONS)
def test_state_dict_lists_every_dense_parameter_by_its_dotted_name(name: str, without: str) -> None:
    model = ModelHarness(name, without).model
    trained = {key.removeprefix("dense.") for key in model.weights() if key.startswith("dense.")}
    state = model.state_dict()
    assert trained <= set(state)
    assert set(state) - trained == ({key for key in state if key.startswith("encoder.")} if name == "prectr" else set())
    components = {"conditional", "relevance_head", "encoder"}
    components |= {"aggregates"} if without != "aggregates" else set()
    components |= {"incentive"} if without != "incentive" else set()
    components |= {"exposure"} if name == "prectr-v2" and without != "cold-start" else set()
    assert {key.partition(".")[0] for key in state} == components
