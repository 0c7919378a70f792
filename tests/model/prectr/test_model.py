"""prectr and prectr-v2 against the same model written out impression by impression."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor

from prectr.model.features.batch import Batch
from prectr.model.features.hashing import cross, row_indices
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.network import RelevanceEncoder
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.exposure import expected_exposure
from tests.kit.models.model_cases import BOTH_MODELS, MODELS_AND_ABLATIONS, PAGES, PRIOR, ModelHarness, level_shares


def _reference(learner: ModelHarness, batch: Batch, weights: dict[str, Tensor], network: RelevanceEncoder) -> Tensor:
    """Log-odds of a click, float64[N]: one impression after the other, with every part as a sum.

    network: the encoder that reads the pairs. The whole prectr-v2, or prectr, with inferred levels.
    """
    size, wide_size = learner.config.embedding_rows, learner.config.wide_rows
    second = learner.config.model == "prectr-v2"
    tokenizer = load_encoder(tiny_encoder()).tokenizer
    table, wide, place, slope = (weights[f"table.{name}"] for name in ("embedding", "wide", "place", "slope"))

    def embed(hashed: np.ndarray, field: str) -> Tensor:
        return table[torch.from_numpy(row_indices(hashed, field, size))]

    def weight(hashed: object, field: str) -> Tensor:
        return wide[int(row_indices(np.array([hashed], dtype=np.uint64), field, wide_size)[0]), 0]

    def dense(name: str) -> Tensor:
        return weights[f"dense.{name}"]

    shares = level_shares()
    exposure = torch.tensor(expected_exposure(learner.training_batches(), batch), dtype=torch.float32)
    logits = []
    for n, page in enumerate(batch.page_of.tolist()):
        encoded = network(tokenizer.encode([batch.texts[n]]))
        pair = encoded.pair_embedding[0]
        similarity = (encoded.query_vector[0] * encoded.item_vector[0]).sum().detach()
        user, query = batch.user[page], batch.query[page]
        ids = {name: getattr(batch, name)[n] for name in ("item", "category", "brand", "group")}
        rates = batch.rates
        parent_odds = _odds(rates.category[n])
        parent = parent_odds - PRIOR
        of_query = _of(rates.query[n], rates.query_impressions[n], rates.query_clicks[n], rates.category[n])
        of_user = _of(rates.user[n], rates.user_impressions[n], rates.user_clicks[n], rates.category[n])
        sources = [of_query, of_user] if second else [of_user]

        history, of_all = batch.history, batch.query_history
        own = [c for c, of in enumerate(history.page_of.tolist()) if of == page]
        past = [embed(history.item[[c]], "item")[0] + embed(history.group[[c]], "group")[0] for c in own]
        mean = sum(past, torch.zeros(learner.config.embedding_dim)) / max(len(past), 1)
        asked = embed(batch.query[[page]], "query")[0]

        r = _attended(
            dense,
            "user",
            1,
            asked,
            past,
            [int(history.level[c]) for c in own],
            [float(history.age_days[c]) for c in own],
            [float(history.query_overlap[c]) for c in own],
            of_user,
        )
        if second:
            others = [c for c, of in enumerate(of_all.page_of.tolist()) if of == page]
            clicked = [embed(of_all.item[[c]], "item")[0] + embed(of_all.group[[c]], "group")[0] for c in others]
            r_all = _attended(
                dense,
                "global",
                2,
                asked,
                clicked,
                [int(of_all.level[c]) for c in others],
                [float(of_all.age_days[c]) for c in others],
                [0.0] * len(others),
                of_query,
            )
            counts = [batch.user_activity[page], rates.user_impressions[n].sum(), rates.query_impressions[n].sum()]
            known = torch.tensor([0.3 * math.log(1 + count) for count in counts])
            gate = torch.sigmoid(dense("incentive.gate")[0] @ known + dense("incentive.gate.bias")[0])
            r = gate * r + (1 - gate) * r_all
        mixture = torch.softmax(dense("incentive.mixture") @ r, dim=0)
        experts = [
            torch.log1p(torch.exp(dense(f"incentive.{name}") @ r + dense(f"incentive.{name}.bias")))
            for name in ("positive", "negative")
        ]
        tau = mixture[0] * experts[0] - mixture[1] * experts[1]

        position = int(batch.positions[n])
        at = [0.0] * 20
        at[min(position, 20) - 1] = 1.0
        text = torch.relu(dense("text.weight") @ pair + dense("text.bias"))
        numbers = torch.cat(
            [
                torch.tensor([*at, math.log(position)]),
                text,
                similarity[None],
                torch.tensor(np.concatenate([parent, *sources]), dtype=torch.float32),
                *([exposure[n]] if second else []),
            ]
        )
        ids_embedded = [embed(np.array([ids[name]]), name)[0] for name in ("item", "category", "brand", "group")]
        layer = torch.cat([embed(batch.user[[page]], "user")[0], asked, mean, *ids_embedded, numbers])
        for number in range(len(learner.config.hidden)):
            layer = torch.relu(dense(f"hidden{number}.weight") @ layer + dense(f"hidden{number}.bias"))
        deep = dense("out.weight") @ layer + dense("out.bias")

        linear = place[0, 0] + place[min(position, 200), 0] + weight(user, "user") + weight(query, "query")
        linear = linear + sum(weight(ids[name], name) for name in ("item", "category", "brand", "group"))
        steep = sum(
            slope[int(row_indices(np.array([hashed], dtype=np.uint64), field, wide_size)[0]), 0]
            for hashed, field in ((query, "query slope"), (user, "user slope"))
        )
        if second:
            of_item = cross(np.array([query], dtype=np.uint64), np.array([ids["item"]], dtype=np.uint64))
            linear = linear + weights["table.pair"][int(row_indices(of_item, "query × item", wide_size)[0]), 0]
            linear = linear + (dense("exposure.straight")[0] * exposure[n]).sum()
        straight = dense("straight")
        conditional = []
        for level in range(4):
            step = level - 1.5
            of_level = place[201 + level + 1, 0]
            for hashed, field in ((query, "query × level"), (user, "user × level")):
                crossed = cross(np.array([hashed], dtype=np.uint64), np.array([level + 1], dtype=np.uint64))
                of_level = of_level + weight(crossed[0], field)
            told = [parent[level]]
            for source in sources:
                told += [source[level], source[8] + source[9] * step, source[9] * step]
            of_level = of_level + torch.tensor(told, dtype=torch.float32) @ straight
            conditional.append(deep[level] + linear + of_level + steep * step + tau[level])
        level_logits = dense("level.weight") @ pair + dense("level.bias")
        if second:
            of_shown = rates.query_impressions[n] + 20.0 * rates.exposed_level_shares
            shift = np.log(of_shown / of_shown.sum()) - np.log(shares)
            level_logits = level_logits + torch.tensor(shift, dtype=torch.float32)
            level_logits = level_logits + dense("exposure.level") @ exposure[n][:4]
        levels = torch.softmax(level_logits, dim=0)
        click = (levels * torch.sigmoid(torch.stack(conditional))).sum()
        logits.append(torch.log(click) - torch.log1p(-click))
    return torch.stack(logits)


def _attended(
    dense: Callable[[str], Tensor],
    of: str,
    heads: int,
    asked: Tensor,
    clicked: list[Tensor],
    levels: list[int],
    ages: list[float],
    overlaps: list[float],
    numbers: np.ndarray,
) -> Tensor:
    """r of one page: attention over its clicks, joined with what the aggregates say."""
    parts = {name: dense(f"incentive.{of}.{name}") for name in ("query", "key", "value", "age", "overlap", "out")}
    width = 16 // heads
    query = parts["query"] @ asked
    said = []
    for head in range(heads):
        here = slice(head * width, (head + 1) * width)
        weights, values = [], []
        for each, level, age, overlap in zip(clicked, levels, ages, overlaps, strict=True):
            score = query[here] @ (parts["key"] @ each)[here] / math.sqrt(width)
            score = score + parts["age"][head, 0] * math.log(1 + age) + parts["overlap"][head, 0] * overlap
            weights.append(torch.exp(8 * torch.tanh(score / 8)))
            values.append((parts["value"] @ torch.cat([each, torch.eye(4)[level - 1]]))[here])
        heard = torch.zeros(width)
        for weight, value in zip(weights, values, strict=True):
            heard = heard + weight / sum(weights) * value
        said.append(heard)
    return parts["out"] @ torch.cat([*said, torch.tensor(numbers, dtype=torch.float32)])


def _odds(rates: np.ndarray) -> np.ndarray:
    return np.log(rates / (1 - rates))


def _of(smoothed: np.ndarray, shown: np.ndarray, clicks: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Ten numbers of a query or a user: differences by level, logarithms of counts, offset and slope."""
    steps = np.array([-1.5, -0.5, 0.5, 1.5])
    design = np.stack([np.ones(4), steps], axis=1)
    information = design.T @ np.diag(shown * parent * (1 - parent)) @ design + np.eye(2) / 0.7**2
    tilt = np.linalg.solve(information, design.T @ (clicks - shown * parent))
    return np.concatenate([_odds(smoothed) - _odds(parent), 0.3 * np.log(1 + shown), tilt])


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_scores_are_those_of_the_model_written_out(name: str) -> None:
    learner = ModelHarness(name).trained()
    batch = learner.batch(PAGES)
    expected = _reference(learner, batch, learner.model.weights(), learner.model._encoder).detach()
    assert float(expected.std()) > 0.05
    assert torch.allclose(learner.model.score(batch), expected, atol=3e-4 if name == "prectr" else 3e-5)
    assert torch.allclose(learner.model.forward(batch).logits, expected, atol=3e-4 if name == "prectr" else 3e-5)


@pytest.mark.parametrize("name", BOTH_MODELS)
def test_gradients_of_the_click_loss_are_those_of_the_model_written_out(name: str) -> None:
    learner = ModelHarness(name).trained()
    batch = learner.batch(PAGES)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in learner.model.weights().items()}
    network = load_encoder(tiny_encoder()).network
    network.load_state_dict(learner.model._encoder.state_dict())
    clicks = torch.from_numpy(batch.labels.astype(np.float32))
    expected = _reference(learner, batch, weights, network)
    torch.nn.functional.binary_cross_entropy_with_logits(expected, clicks).backward()
    learner.model._dense.gradient.zero_()
    forward = learner.model.forward(batch)
    forward.losses["click"].backward()  # type: ignore[no-untyped-call]
    of_network = {f"encoder.{name}": parameter.grad for name, parameter in network.named_parameters()}
    for each in learner.model._dense.parameters_by_name():
        wanted = of_network[each] if each.startswith("encoder.") else weights[f"dense.{each}"].grad
        seen = learner.model._dense[each].grad
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
