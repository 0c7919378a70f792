"""The neural models against the same network written with dense one-hot matrices."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from prectr.model.config import TrainerConfig
from prectr.model.features.aggregate_features import rate_features
from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.hashed_features import position_indices, slope_indices
from prectr.model.features.hashing import row_indices
from prectr.model.features.smoothing import PriorRates
from prectr.model.layers.mlp import position_features
from prectr.model.models.dnn import DeepNetwork
from prectr.model.models.neural import NeuralModel
from prectr.model.models.wide_deep import WideDeep, wide_indices
from prectr.model.models.wide_deep_plus import WideDeepPlus
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.exposure import expected_exposure
from tests.kit.models.shifts import shifts_of

CPU = torch.device("cpu")
CONFIG = small_config(embedding_scale=0.3, embedding_dim=4, hidden=(6, 5))


def _with_exposure(config: TrainerConfig, device: torch.device) -> NeuralModel:
    return WideDeepPlus(replace(config, exposure="on"), device)


MODELS: list[Callable[[TrainerConfig, torch.device], NeuralModel]] = [
    DeepNetwork,
    WideDeep,
    WideDeepPlus,
    _with_exposure,
]
_SEEN = range(1, 9)
"""Seeds of the batches that `_trained` has learned from."""


def _one_hot(wanted: np.ndarray, size: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(wanted), size).float()


def _batch(seed: int = 0) -> Batch:
    return FeatureEncoder().encode(random_examples(5, seed=seed), PriorRates(64, 20.0))


def _reference(model: NeuralModel, batch: Batch, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits by matrix products, page by page and click by click where the models work on whole batches."""
    size = CONFIG.embedding_rows
    table = weights["table.embedding"]
    embed = {
        name: _one_hot(row_indices(getattr(batch, name), name, size), size) @ table
        for name in ("user", "query", "item", "category", "brand", "group")
    }
    past_item = _one_hot(row_indices(batch.history.item, "item", size), size) @ table
    past_group = _one_hot(row_indices(batch.history.group, "group", size), size) @ table
    past = []
    for page in range(batch.pages):
        own = [past_item[c] + past_group[c] for c, of in enumerate(batch.history.page_of.tolist()) if of == page]
        past.append(sum(own, torch.zeros(CONFIG.embedding_dim)) / max(len(own), 1))
    numbers = torch.from_numpy(position_features(batch))
    plus = isinstance(model, WideDeepPlus)
    if plus:
        numbers = torch.cat([numbers, torch.from_numpy(rate_features(batch))], dim=1)
    if plus and model._exposure_sketch is not None:
        exposure = expected_exposure([_batch(seed) for seed in _SEEN], batch)
        numbers = torch.cat([numbers, torch.tensor(exposure, dtype=torch.float32)], dim=1)
    logits = []
    for n, page in enumerate(batch.page_of.tolist()):
        layer = torch.cat(
            [
                embed["user"][page],
                embed["query"][page],
                past[page],
                *(embed[name][n] for name in ("item", "category", "brand", "group")),
                numbers[n],
            ]
        )
        for k in range(2):
            layer = torch.relu(
                weights[f"dense.deep.hidden.{k}.weight"] @ layer + weights[f"dense.deep.hidden.{k}.bias"]
            )
        logits.append((weights["dense.deep.out.weight"] @ layer + weights["dense.deep.out.bias"])[0])
    logit = torch.stack(logits)
    position = weights["table.position"]
    logit = logit + (_one_hot(position_indices(batch), len(position)).sum(1) @ position)[:, 0]
    if isinstance(model, DeepNetwork):
        return logit
    wide = weights["table.wide"]
    logit = logit + (_one_hot(wide_indices(batch, len(wide)), len(wide)).sum(1) @ wide)[:, 0]
    if plus:
        slope = weights["table.slope"]
        tilt = (_one_hot(slope_indices(batch, len(slope)), len(slope)).sum(1) @ slope)[:, 0]
        logit = logit + tilt * (torch.from_numpy(batch.levels.astype(np.float32)) - 2.5)
        logit = logit + numbers @ weights["dense.direct.weight"][0]
        logit = logit + torch.stack([_recency_term(batch, n, weights["table.recency"]) for n in range(len(logit))])
    return logit


def _recency_term(batch: Batch, n: int, weights: torch.Tensor) -> torch.Tensor:
    step = float(batch.levels[n]) - 2.5
    return sum(
        (weights[number, 0] * float(intercept + slope * step) for number, (intercept, slope) in shifts_of(batch, n)),
        torch.zeros(()),
    )


def _trained(make: Callable[[TrainerConfig, torch.device], NeuralModel]) -> NeuralModel:
    model = make(CONFIG, CPU)
    for seed in _SEEN:
        batch = _batch(seed)
        model.step(model.gradients(batch, model.forward(batch)))
    return model


@pytest.mark.parametrize("make", MODELS)
def test_logits_are_those_of_the_network_written_densely(make: Callable[..., NeuralModel]) -> None:
    model, batch = _trained(make), _batch()
    expected = _reference(model, batch, model.weights())
    assert torch.allclose(model.forward(batch).logits, expected, atol=1e-5)
    assert torch.allclose(model.score(batch), expected, atol=1e-5)


@pytest.mark.parametrize("make", MODELS)
def test_gradients_are_those_of_the_network_written_densely(make: Callable[..., NeuralModel]) -> None:
    model, batch = _trained(make), _batch()
    dense = {name: tensor.clone().requires_grad_() for name, tensor in model.weights().items()}
    clicks = torch.from_numpy(batch.labels.astype(np.float32))
    torch.nn.functional.binary_cross_entropy_with_logits(_reference(model, batch, dense), clicks).backward()
    forward = model.forward(batch)
    forward.losses["click"].backward()  # type: ignore[no-untyped-call]
    for name, gathered in forward.gathered.items():
        expected = dense[f"table.{name}"].grad
        assert expected is not None
        assert gathered.values.grad is not None
        assert torch.allclose(gathered.values.grad, expected[gathered.indices], atol=1e-6)
        assert float(expected.abs().sum()) == pytest.approx(float(gathered.values.grad.abs().sum()), rel=1e-4)
    for name, parameter in model.named_parameters():
        expected, seen = dense[f"dense.{name}"].grad, parameter.grad
        assert expected is not None
        assert seen is not None
        assert torch.allclose(seen, expected, atol=1e-6)


@pytest.mark.parametrize("make", MODELS)
def test_rows_learn_from_the_sum_and_dense_parameters_from_the_mean(make: Callable[..., NeuralModel]) -> None:
    model, batch = _trained(make), _batch()
    before = model._tables["embedding"].optimizer_state["squares"].clone()
    forward = model.forward(batch)
    model.step(model.gradients(batch, forward))
    gathered = forward.gathered["embedding"]
    assert gathered.values.grad is not None
    grown = (model._tables["embedding"].optimizer_state["squares"] - before)[gathered.indices]
    assert torch.allclose(grown, (gathered.values.grad * batch.impressions) ** 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("make", MODELS)
def test_a_forward_pass_changes_nothing(make: Callable[..., NeuralModel]) -> None:
    model, batch = _trained(make), _batch()
    before = {name: tensor.clone() for name, tensor in model.weights().items()}
    model.forward(batch)
    model.score(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.weights().items())
