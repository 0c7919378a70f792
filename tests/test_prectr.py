"""prectr and prectr-v2 against the same model written out impression by impression, and what each switch promises."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor

from model.config import TrainerConfig
from model.encoder.folder import load_encoder
from model.encoder.network import RelevanceEncoder
from model.features import Batch, FeatureEncoder
from model.hashing import cross, rows
from model.online import Forward
from model.prectr import Prectr
from model.registry import MODELS, make_model
from model.smoothing import Parents
from model.trainer import Trainer
from state.errors import TrainingError
from stream.events import Item
from stream.records import Example, QueryClick, UserClick, decode_page
from tests.kit.encoder import tiny_encoder
from tests.kit.examples import random_examples, small_config
from tests.kit.threads import in_threads

CPU = torch.device("cpu")
BOTH = ("prectr", "prectr-v2")
EVERY = [(name, "") for name in BOTH] + [(name, part) for name in BOTH for part in sorted(MODELS[name].switches)]
"""Each model whole, and without each of its parts."""
PRIOR = math.log(0.1 / 0.9)


def _examples(pages: int, seed: int = 0) -> list[Example]:
    """Pages whose users and queries have clicks of several levels and ages."""
    random = np.random.default_rng(seed + 100)
    return [_with_clicks(example, random) for example in random_examples(pages, seed=seed)]


def _with_clicks(example: Example, random: np.random.Generator) -> Example:
    def some(most: int) -> range:
        return range(int(random.integers(0, most)))

    def level() -> int:
        return int(random.integers(1, 5))

    def ts() -> int:
        return example.ts - int(random.integers(1, 10**9))

    own = [
        UserClick(
            ts(),
            "r",
            f"item {random.integers(40)}",
            f"query {random.integers(8)}",
            None,
            level(),
            "category 1",
            None,
            9.0,
        )
        for _ in some(6)
    ]
    of_query = [QueryClick(ts(), f"item {random.integers(40)}", level(), "category 2", None, 5.0) for _ in some(7)]
    return msgspec.structs.replace(
        example,
        user_activity=len(own),
        history=msgspec.Raw(msgspec.msgpack.encode(own)),
        query_clicks=msgspec.Raw(msgspec.msgpack.encode(of_query)),
    )


class Learner:
    """A model with what the trainer keeps beside it."""

    def __init__(
        self, name: str = "prectr-v2", without: str = "", *, config: TrainerConfig | None = None, **settings: object
    ) -> None:
        settings = {"encoder_share": 1.0, "embedding_scale": 0.3, "embedding_dim": 4, "hidden": (6, 5), **settings}
        self.config = config or small_config(model=name, without=(without,) if without else (), **settings)
        model = make_model(self.config, CPU)
        assert isinstance(model, Prectr)
        self.model = model
        self.parents = Parents(64, 20.0)

    def batch(self, examples: Sequence[Example]) -> Batch:
        return FeatureEncoder().encode(examples, self.parents, self.model.reads)

    def learn(self, examples: Sequence[Example]) -> Forward:
        batch = self.batch(examples)
        forward = self.model.forward(batch)
        self.model.step(self.model.gradients(batch, forward))
        self.parents.add(batch.category, batch.levels, batch.labels)
        return forward

    def trained(self) -> "Learner":
        """As six batches leave it; they are learned from once for all tests that ask for the same settings."""
        exported, parents = _after_six_batches(self.config)
        self.model.restore(_copied(exported))
        self.parents.restore(parents.impressions.copy(), parents.clicks.copy())
        return self

    def score(self, examples: Sequence[Example]) -> Tensor:
        return self.model.score(self.batch(examples))

    def gradients(self, examples: Sequence[Example]) -> dict[str, float]:
        """The largest size of each dense parameter's gradient, by name."""
        batch = self.batch(examples)
        self.model.gradients(batch, self.model.forward(batch))
        return {name: _largest(self.model._dense[name].grad) for name in self.model._dense.named()}

    def gradient_of(self, examples: Sequence[Example], loss: str) -> dict[str, float]:
        """The same of one part of the loss alone."""
        self.model._dense.gradient.zero_()
        self.model.forward(self.batch(examples)).losses[loss].backward()  # type: ignore[no-untyped-call]
        found = {name: _largest(self.model._dense[name].grad) for name in self.model._dense.named()}
        self.model._dense.gradient.zero_()
        return found


@cache
def _after_six_batches(config: TrainerConfig) -> tuple[dict[str, Tensor], Parents]:
    learner = Learner(config=config)
    for seed in range(6):
        learner.learn(_examples(5, seed=seed + 1))
    return _copied(learner.model.export()), learner.parents


def _largest(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None or not gradient.numel() else float(gradient.abs().max())


PAGES = _examples(5, seed=50)


# The model, written out.


def _reference(learner: Learner, batch: Batch, weights: dict[str, Tensor], network: RelevanceEncoder) -> Tensor:
    """Log-odds of a click, float64[N]: one impression after the other, with every part as a sum.

    network: the encoder that reads the pairs. The whole prectr-v2, or prectr, with inferred levels.
    """
    size, wide_size = learner.config.embedding_rows, learner.config.wide_rows
    second = learner.config.model == "prectr-v2"
    tokenizer = load_encoder(tiny_encoder()).tokenizer
    table, wide, place, slope = (weights[f"table.{name}"] for name in ("embedding", "wide", "place", "slope"))

    def embed(hashed: np.ndarray, field: str) -> Tensor:
        return table[torch.from_numpy(rows(hashed, field, size))]

    def weight(hashed: object, field: str) -> Tensor:
        return wide[int(rows(np.array([hashed], dtype=np.uint64), field, wide_size)[0]), 0]

    def dense(name: str) -> Tensor:
        return weights[f"dense.{name}"]

    shares = _shares()
    logits = []
    for n, page in enumerate(batch.page_of.tolist()):
        encoded = network(tokenizer.encode([batch.texts[n]]))
        pair = encoded.pair[0]
        similarity = (encoded.query[0] * encoded.item[0]).sum().detach()
        user, query = batch.user[page], batch.query[page]
        ids = {name: getattr(batch, name)[n] for name in ("item", "category", "brand", "group")}
        rates = batch.rates
        parent_odds = _odds(rates.parent[n])
        parent = parent_odds - PRIOR
        of_query = _of(rates.query[n], rates.query_impressions[n], rates.query_clicks[n], rates.parent[n])
        of_user = _of(rates.user[n], rates.user_impressions[n], rates.user_clicks[n], rates.parent[n])
        sources = [of_query, of_user] if second else [of_user]

        history, of_all = batch.history, batch.query_history
        own = [c for c, of in enumerate(history.page_of.tolist()) if of == page]
        past = [embed(history.item[[c]], "item")[0] + embed(history.group[[c]], "group")[0] for c in own]
        mean = sum(past, torch.zeros(learner.config.embedding_dim)) / max(len(past), 1)
        asked = embed(batch.query[[page]], "query")[0]

        r = _heard(
            dense,
            "user",
            1,
            asked,
            past,
            [int(history.level[c]) for c in own],
            [float(history.age[c]) for c in own],
            [float(history.overlap[c]) for c in own],
            of_user,
        )
        if second:
            others = [c for c, of in enumerate(of_all.page_of.tolist()) if of == page]
            clicked = [embed(of_all.item[[c]], "item")[0] + embed(of_all.group[[c]], "group")[0] for c in others]
            r_all = _heard(
                dense,
                "global",
                2,
                asked,
                clicked,
                [int(of_all.level[c]) for c in others],
                [float(of_all.age[c]) for c in others],
                [0.0] * len(others),
                of_query,
            )
            counts = [batch.activity[page], rates.user_impressions[n].sum(), rates.query_impressions[n].sum()]
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
            slope[int(rows(np.array([hashed], dtype=np.uint64), field, wide_size)[0]), 0]
            for hashed, field in ((query, "query slope"), (user, "user slope"))
        )
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
            level_logits = level_logits + torch.tensor(np.log(rates.exposed) - np.log(shares), dtype=torch.float32)
        levels = torch.softmax(level_logits, dim=0)
        click = (levels * torch.sigmoid(torch.stack(conditional))).sum()
        logits.append(torch.log(click) - torch.log1p(-click))
    return torch.stack(logits)


def _heard(
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


def _shares() -> np.ndarray:
    """How often each level is graded, one more of each."""
    counts = np.ones(4)
    for pair in load_encoder(tiny_encoder()).pairs:
        counts[pair.level - 1] += 1
    return counts / counts.sum()


@pytest.mark.parametrize("name", BOTH)
def test_scores_are_those_of_the_model_written_out(name: str) -> None:
    learner = Learner(name).trained()
    batch = learner.batch(PAGES)
    expected = _reference(learner, batch, learner.model.weights(), learner.model._encoder).detach()
    assert float(expected.std()) > 0.05
    assert torch.allclose(learner.model.score(batch), expected, atol=3e-4 if name == "prectr" else 3e-5)
    assert torch.allclose(learner.model.forward(batch).logits, expected, atol=3e-4 if name == "prectr" else 3e-5)


@pytest.mark.parametrize("name", BOTH)
def test_gradients_of_the_click_loss_are_those_of_the_model_written_out(name: str) -> None:
    learner = Learner(name).trained()
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
    for each in learner.model._dense.named():
        wanted = of_network[each] if each.startswith("encoder.") else weights[f"dense.{each}"].grad
        seen = learner.model._dense[each].grad
        assert seen is not None
        assert torch.allclose(seen, torch.zeros_like(seen) if wanted is None else wanted, atol=2e-5), each
    for table, gathered in forward.gathered.items():
        of_table = weights[f"table.{table}"].grad
        assert of_table is not None
        assert gathered.values.grad is not None
        assert torch.allclose(gathered.values.grad, of_table[gathered.unique], atol=2e-5), table
        assert float(of_table.abs().sum()) == pytest.approx(float(gathered.values.grad.abs().sum()), rel=1e-2)


@pytest.mark.parametrize(("name", "without"), EVERY)
def test_at_the_start_a_click_is_as_likely_as_the_prior_says(name: str, without: str) -> None:
    assert Learner(name, without).score(PAGES).tolist() == pytest.approx(
        [PRIOR] * len(Learner().score(PAGES)), abs=1e-5
    )


def test_what_explains_a_score_adds_up_to_it() -> None:
    learner = Learner().trained()
    batch = learner.batch(PAGES)
    explained = learner.model.explain(batch)
    levels = explained.log_levels.double().exp().numpy()
    click = (levels * expit(explained.conditional.double().numpy())).sum(axis=1)
    assert levels.sum(axis=1) == pytest.approx(np.ones(batch.impressions), abs=1e-6)
    assert torch.equal(explained.log_odds, learner.model.score(batch))
    assert explained.log_odds.numpy() == pytest.approx(np.log(click / (1 - click)), abs=1e-5)
    assert explained.parts.tau.shape == (batch.impressions, 4)


# Which losses there are, and what learns from them.

LOSSES = {
    ("prectr", ""): {"click", "order", "anchor", "replay"},
    ("prectr", "consistency"): {"click", "replay"},
    ("prectr", "two-stage"): {"click", "order"},
    ("prectr", "incentive"): {"click", "order", "anchor", "replay"},
    ("prectr", "aggregates"): {"click", "order", "anchor", "replay"},
    ("prectr-v2", ""): {"click", "order", "anchor", "replay", "debias"},
    ("prectr-v2", "cold-start"): {"click", "order", "anchor", "replay", "debias"},
    ("prectr-v2", "debias"): {"click", "order", "anchor", "replay"},
    ("prectr-v2", "consistency"): {"click", "replay", "debias"},
    ("prectr-v2", "two-stage"): {"click", "order", "debias"},
    ("prectr-v2", "incentive"): {"click", "order", "anchor", "replay", "debias"},
    ("prectr-v2", "aggregates"): {"click", "order", "anchor", "replay", "debias"},
    # Without pre-training there is no stage one to stay near to.
    ("prectr-v2", "pretraining"): {"click", "order", "replay", "debias"},
}


def test_every_switch_has_its_losses_here() -> None:
    assert set(LOSSES) == set(EVERY)


@pytest.mark.parametrize(("name", "without"), EVERY)
def test_each_switch_takes_away_its_own_losses(name: str, without: str) -> None:
    assert set(Learner(name, without).learn(PAGES).losses) == LOSSES[name, without]


def test_shift_alone_makes_no_hard_negatives() -> None:
    assert "debias" not in Learner(debias="shift").learn(PAGES).losses
    assert "debias" in Learner(debias="hinge").learn(PAGES).losses


@pytest.mark.parametrize("name", BOTH)
def test_with_logged_levels_clicks_and_their_order_are_all_that_is_learned_from(name: str) -> None:
    assert set(Learner(name, levels="logged").learn(PAGES).losses) == {"click", "order"}


IN_VAIN = {"encoder.levels.weight", "encoder.levels.bias"}
"""The head that stage one left: joint training has its own."""
APART = {"encoder.query.weight", "encoder.query.bias", "encoder.item.weight", "encoder.item.bias"}
"""e_q·e_i is told, and not learned from."""
LEVEL_HEAD = {"level.weight", "level.bias"}
GLOBAL = {f"incentive.global.{name}" for name in ("query", "key", "value", "age", "out")}
GATE = {"incentive.gate", "incentive.gate.bias"}
NOT_JUDGED = {"incentive.global.overlap"}
"""The clicks of a query are all for that query: there is no overlap to weigh."""
CLICK_HEADS = {"hidden0.weight", "hidden0.bias", "hidden1.weight", "hidden1.bias", "out.weight", "out.bias"}
TEXT = {"text.weight", "text.bias"}


def _learns(gradients: dict[str, float]) -> set[str]:
    """The parameters whose gradient is more than what rounding leaves of zero."""
    return {name for name, size in gradients.items() if size > 1e-9} - NOT_JUDGED


def _encoder_parts(names: set[str]) -> set[str]:
    # Attention does not change with the bias of its keys (softmax takes no notice): its gradient is rounding.
    return {name for name in names if name.startswith("encoder.") and not name.endswith("key.bias")}


@pytest.mark.parametrize(("name", "without"), EVERY)
def test_gradients_flow_to_every_parameter_that_should_learn_and_to_no_other(name: str, without: str) -> None:
    learner = Learner(name, without).trained()
    gradients = learner.gradients(_examples(12, seed=60))
    there, learns = set(gradients) - NOT_JUDGED, _learns(gradients)
    of_incentive = {each for each in there if each.startswith("incentive.")}
    joint = name == "prectr-v2"
    assert {each for each in learns if not each.startswith("encoder.")} == {
        each
        for each in there
        if not each.startswith("encoder.") and not (each == "straight" and without == "aggregates")
    }
    assert there >= CLICK_HEADS | TEXT | LEVEL_HEAD | {"straight"}
    assert (of_incentive == set()) == (without == "incentive")
    assert (of_incentive >= GLOBAL | GATE) == (joint and without not in {"incentive", "cold-start"})
    assert not any("global" in each or "gate" in each for each in of_incentive) or joint
    assert any(each.startswith("encoder.") for each in there) == joint
    if joint:
        expected = _encoder_parts(there) - IN_VAIN - APART
        assert _encoder_parts(learns) == expected
        assert len(expected) > 20


@pytest.mark.parametrize(("name", "without"), EVERY)
def test_every_table_learns(name: str, without: str) -> None:
    learner = Learner(name, without).trained()
    batch = learner.batch(PAGES)
    gradients = learner.model.gradients(batch, learner.model.forward(batch))
    assert {"embedding", "place", "wide", "slope"} <= set(gradients.tables)
    for table in ("embedding", "place", "wide", "slope"):
        assert gradients.tables[table].gradient.abs().max().item() > 1e-6


def test_the_encoder_of_prectr_stays_as_stage_one_left_it() -> None:
    learner = Learner("prectr").trained()
    folder = load_encoder(tiny_encoder()).network.state_dict()
    assert all(torch.equal(tensor, folder[name]) for name, tensor in learner.model._encoder.state_dict().items())


def test_the_encoder_of_prectr_v2_learns() -> None:
    learner = Learner().trained()
    folder = load_encoder(tiny_encoder()).network.state_dict()
    moved = {
        name for name, tensor in learner.model._encoder.state_dict().items() if not torch.equal(tensor, folder[name])
    }
    assert {name.split(".")[0] for name in moved} == {"bert", "join", "norm"}


def test_the_cache_alone_leaves_the_encoder_where_it_is_but_for_replayed_pairs() -> None:
    learner = Learner(encoder_share=0.0, replay_pairs=0, replay_weight=0.0, without="two-stage").trained()
    folder = load_encoder(tiny_encoder()).network.state_dict()
    assert all(torch.equal(tensor, folder[name]) for name, tensor in learner.model._encoder.state_dict().items())


@pytest.mark.parametrize("name", BOTH)
def test_with_logged_levels_the_level_head_learns_nothing(name: str) -> None:
    learner = Learner(name, levels="logged").trained()
    gradients = learner.gradients(_examples(12, seed=60))
    for each in LEVEL_HEAD:
        assert gradients[each] == 0.0
    folder = load_encoder(tiny_encoder()).network
    assert torch.equal(learner.model._dense["level.weight"].detach(), folder.levels.weight)
    assert (_encoder_parts(_learns(gradients)) != set()) == (name == "prectr-v2")


@pytest.mark.parametrize(
    ("loss", "settings", "level_head", "click_heads"),
    [
        ("click", {}, True, True),
        ("order", {"order_weight": 0.01}, False, True),
        ("anchor", {}, True, False),
        ("replay", {}, True, False),
        ("debias", {"debias": "shift+soft"}, False, True),
        ("debias", {"debias": "hinge"}, True, True),
    ],
)
def test_each_loss_teaches_what_it_speaks_of(
    loss: str, settings: dict[str, object], level_head: bool, click_heads: bool
) -> None:
    """Clicks teach levels, but not through a hard negative's fake one; anchor and replay teach nothing of clicks."""
    learner = Learner(**settings).trained()  # type: ignore[arg-type]
    learns = _learns(learner.gradient_of(_examples(12, seed=60), loss))
    assert (learns & LEVEL_HEAD == LEVEL_HEAD, learns & LEVEL_HEAD == set()) == (level_head, not level_head)
    assert (learns >= CLICK_HEADS, learns & (CLICK_HEADS | TEXT) == set()) == (click_heads, not click_heads)
    assert any(name.startswith("incentive") for name in learns) == click_heads
    assert _encoder_parts(learns) != set()


# What each switch promises.


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


def _changed(learner: Learner, change: Callable[[Example], Example]) -> float:
    """How far scores move when pages are changed so."""
    before, after = learner.score(PAGES), learner.score([change(example) for example in PAGES])
    return (after - before).abs().max().item()


def test_cold_start_is_all_that_reads_what_all_users_did_for_the_query() -> None:
    whole, without, first = (
        Learner(*of).trained() for of in (("prectr-v2",), ("prectr-v2", "cold-start"), ("prectr",))
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


@pytest.mark.parametrize("name", BOTH)
def test_aggregates_are_all_that_reads_click_rates_by_level(name: str) -> None:
    """By how much the score follows the clicks of query, user and category."""
    whole, without = Learner(name).trained(), Learner(name, "aggregates").trained()
    for of in ("query", "user") if name == "prectr-v2" else ("user",):
        assert _changed(whole, lambda example, of=of: _other_counts(example, of, "clicks")) > 1e-4  # type: ignore[misc]
        assert _changed(without, lambda example, of=of: _other_counts(example, of, "clicks")) == 0.0  # type: ignore[misc]
    before = [learner.score(PAGES) for learner in (whole, without)]
    for learner in (whole, without):
        learner.parents.clicks += learner.parents.impressions * 0.3
        learner.parents.restore(learner.parents.impressions, learner.parents.clicks)
    assert not torch.allclose(whole.score(PAGES), before[0], atol=1e-4)
    assert torch.equal(without.score(PAGES), before[1])


@pytest.mark.parametrize("name", BOTH)
def test_without_incentive_nobody_prefers_a_level(name: str) -> None:
    whole, without = Learner(name).trained(), Learner(name, "incentive").trained()
    batch = whole.batch(PAGES)
    tau = whole.model.explain(batch).parts.tau
    assert tau.abs().max().item() > 1e-3
    assert (tau[:, 3] - tau[:, 0]).abs().max().item() > 1e-4
    assert without.model.explain(without.batch(PAGES)).parts.tau.abs().max().item() == 0.0
    other = dataclasses.replace(
        batch, history=dataclasses.replace(batch.history, level=5 - batch.history.level, age=batch.history.age + 9)
    )
    assert not torch.allclose(whole.model.score(other), whole.model.score(batch), atol=1e-5)
    assert torch.equal(without.model.score(other), without.model.score(batch))
    assert _changed(without, _other_query_clicks) == 0.0


def test_debias_tells_what_was_shown_from_what_was_not() -> None:
    """With `shift`, P(level) of what was shown is stage one's, times exposed over candidates; else it is left alone."""
    whole, without = Learner().trained(), Learner(without="debias").trained()
    for learner in (whole, without):
        learner.parents.impressions[0] += [0.0, 0.0, 500.0, 3000.0]
        learner.parents.restore(learner.parents.impressions, learner.parents.clicks)
    batch = whole.batch(PAGES)
    unseen = dataclasses.replace(batch.at_position(1), item=batch.item + np.uint64(77))
    there = whole.model.explain(batch).log_levels.exp()
    elsewhere = whole.model.explain(unseen).log_levels.exp()
    ratio = torch.from_numpy(batch.rates.exposed / _shares()).float()
    expected = elsewhere * ratio / (elsewhere * ratio).sum(dim=1, keepdim=True)
    assert torch.allclose(there, expected, atol=1e-5)
    assert (there - elsewhere).abs().max().item() > 0.2
    of_plain = [without.model.explain(each).log_levels for each in (batch, unseen)]
    assert torch.equal(*of_plain)


@pytest.mark.parametrize("debias", ["hinge", "shift", "shift+soft"])
def test_only_shift_changes_levels_of_what_was_shown(debias: str) -> None:
    learner = Learner(debias=debias).trained()
    batch = learner.batch(PAGES)
    unseen = dataclasses.replace(batch.at_position(1), item=batch.item + np.uint64(77))
    same = torch.equal(learner.model.explain(batch).log_levels, learner.model.explain(unseen).log_levels)
    assert same == (debias == "hinge")


def test_a_candidate_shifts_once_it_has_been_shown_for_the_query() -> None:
    learner = Learner(shown_slots=1 << 20).trained()
    for ranking in (False, True):
        batch = learner.batch(PAGES)
        candidates = batch.at_position(1)
        levels = [learner.model.explain(each).log_levels for each in (candidates, batch)]
        assert torch.allclose(*levels, atol=1e-6) == ranking
        if not ranking:
            before = learner.parents.clicks.copy(), learner.parents.impressions.copy()
            learner.learn(PAGES)
            learner.parents.restore(before[1], before[0])


@pytest.mark.parametrize("name", BOTH)
def test_two_stage_starts_with_the_levels_of_stage_one(name: str) -> None:
    network, tokenizer = load_encoder(tiny_encoder()).network, load_encoder(tiny_encoder()).tokenizer
    for without, same in (("", True), ("two-stage", False)):
        learner = Learner(name, without)
        batch = learner.batch(PAGES).at_position(1)
        levels = learner.model.explain(batch).log_levels
        with torch.no_grad():
            expected = torch.log_softmax(network(tokenizer.encode(list(batch.texts))).level_logits, dim=1)
        assert torch.allclose(levels, expected if same else torch.full_like(levels, math.log(0.25)), atol=1e-5)
        assert not torch.allclose(expected, torch.full_like(levels, math.log(0.25)), atol=1e-2)


def test_pretraining_is_the_encoders_weights_at_the_start() -> None:
    folder = load_encoder(tiny_encoder()).network.state_dict()
    whole, without, seeded = Learner(), Learner(without="pretraining"), Learner(without="pretraining", seed=5)
    start = whole.model._encoder.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in folder.items())
    words = "bert.embeddings.word_embeddings.weight"
    fresh = [learner.model._encoder.state_dict()[words] for learner in (without, seeded)]
    assert fresh[0].shape == folder[words].shape
    assert not torch.equal(fresh[0], folder[words])
    assert not torch.equal(fresh[0], fresh[1])


# Labels and levels that must not be seen.


@pytest.mark.parametrize(("name", "without"), EVERY)
def test_a_score_sees_neither_logged_levels_nor_labels(name: str, without: str) -> None:
    learner = Learner(name, without).trained()
    batch = learner.batch(PAGES)
    other = dataclasses.replace(
        batch, levels=5 - batch.levels, labels=1 - batch.labels, level_weights=batch.level_weights[:, ::-1].copy()
    )
    assert torch.equal(learner.model.score(other), learner.model.score(batch))
    assert torch.equal(learner.model.forward(other).logits, learner.model.forward(batch).logits)


@pytest.mark.parametrize("name", BOTH)
def test_with_logged_levels_it_is_the_logged_level_that_counts(name: str) -> None:
    learner = Learner(name, levels="logged").trained()
    batch = learner.batch(PAGES)
    explained = learner.model.explain(batch)
    own = explained.conditional.gather(1, torch.from_numpy(batch.levels.astype(np.int64) - 1)[:, None])[:, 0]
    assert torch.allclose(explained.log_odds, own, atol=1e-3)


# State: forward changes nothing, a bad loss changes nothing, and a resumed model is the same model.


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor.nan_to_num(7.0), other[name].nan_to_num(7.0))
        if tensor.is_floating_point()
        else torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )


def _copied(exported: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in exported.items()}


@pytest.mark.parametrize(("name", "without", "share"), [*((*each, 1.0) for each in EVERY), ("prectr-v2", "", 0.3)])
def test_a_forward_pass_a_score_and_its_explanation_change_nothing(name: str, without: str, share: float) -> None:
    learner = Learner(name, without, encoder_share=share).trained()
    before = _copied(learner.model.export())
    batch = learner.batch(_examples(5, seed=70))
    learner.model.forward(batch)
    learner.model.score(batch)
    learner.model.explain(batch.at_position(1))
    assert _same(learner.model.export(), before)
    learner.learn(_examples(5, seed=70))
    changed = {
        part
        for part in learner.model.export()
        if not _same({part: learner.model.export()[part]}, {part: before[part]})
        if learner.model.export()[part].shape == before[part].shape
    }
    assert {"dense.values", "pairs.step", "shown.bits"} <= changed


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("poisoned", ["text.bias", "level.bias", "hidden0.bias"])
def test_a_loss_that_is_not_finite_leaves_weights_caches_and_what_was_shown_untouched(name: str, poisoned: str) -> None:
    trainer = Trainer(small_config(model=name, batch_span=1e9, encoder_share=0.3))
    examples = _examples(12, seed=7)
    trainer.consume(examples[:8], 0)
    model = trainer._model
    assert isinstance(model, Prectr)
    with torch.no_grad():
        model._dense[poisoned].fill_(torch.nan)
    before, parents = _copied(model.export()), (trainer._parents.impressions.copy(), trainer._parents.clicks.copy())
    with pytest.raises(TrainingError, match=r"loss.*'r00008', 'r00009', 'r00010', 'r00011'"):
        trainer.consume(examples[8:], 0)
    assert _same(model.export(), before)
    assert np.array_equal(trainer._parents.impressions, parents[0])
    assert np.array_equal(trainer._parents.clicks, parents[1])
    assert trainer.batches == 2


SMALL = {"encoder_share": 0.3, "pair_slots": 24, "pair_refresh": 3, "shown_slots": 64, "batch_span": 1e9}


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
    examples = _examples(22, seed=9)
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
    assert _same(resumed._model.export(), undisturbed._model.export())
    assert resumed.weights_sha256() == undisturbed.weights_sha256()
    assert resumed.quality.state() == undisturbed.quality.state()
    assert np.array_equal(resumed.score(PAGES), undisturbed.score(PAGES))
    assert resumed.batches == 6


def test_another_encoder_under_the_same_name_is_refused() -> None:
    learner, other = Learner().trained(), Learner(encoder=str(tiny_encoder(1)))
    with pytest.raises(ValueError, match="trained with encoder"):
        other.model.restore(learner.model.export())


# Several ranks.


@pytest.mark.parametrize("name", BOTH)
def test_ranks_hold_one_model_caches_and_what_was_shown_included(name: str) -> None:
    config = small_config(model=name, batch_pages=5, **{**SMALL, "batch_span": 100.0})
    examples = _examples(15, seed=3)

    def work(ranks: object) -> Trainer:
        trainer = Trainer(config, ranks=ranks)  # type: ignore[arg-type]
        trainer.consume(examples, 0)
        trainer.flush()
        return trainer

    trainers = in_threads(3, work)
    assert _same(trainers[1]._model.export(), trainers[0]._model.export())
    assert _same(trainers[2]._model.export(), trainers[0]._model.export())
    alone = Trainer(config)
    alone.consume(examples, 0)
    alone.flush()
    bits = [trainer._model.export()["shown.bits"] for trainer in (trainers[0], alone)]
    assert torch.equal(*bits)


# Bad input.


def _strange(example: Example, title: str | None, price: float | None) -> Example:
    page = decode_page(example.page)
    items = [Item(item.item_id, title, item.relevance, price, None, None, item.position) for item in page.items]
    return msgspec.structs.replace(
        example, page=msgspec.Raw(msgspec.msgpack.encode(msgspec.structs.replace(page, items=items)))
    )


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("title", "price"),
    [
        (None, None),
        ("", 0.0),
        ("🎉🎉🎉", math.nan),
        ("x" * 2000, math.inf),
        ("title 1 " * 250, -5.0),
        ("\0\u200b", 1e308),
    ],
)
def test_strange_items_have_sensible_scores_and_can_be_learned_from(
    name: str, title: str | None, price: float | None
) -> None:
    learner = Learner(name).trained()
    pages = [_strange(example, title, price) for example in PAGES]
    scores = learner.score(pages)
    assert bool(torch.isfinite(scores).all())
    assert scores.abs().max().item() < 10
    assert all(bool(torch.isfinite(loss)) for loss in learner.learn(pages).losses.values())
    assert bool(torch.isfinite(learner.score(PAGES)).all())


@pytest.mark.parametrize("name", BOTH)
def test_a_user_and_a_query_never_seen_have_sensible_scores(name: str) -> None:
    learner = Learner(name).trained()
    nobody = [
        msgspec.structs.replace(
            example,
            user_id="nobody",
            query="neverasked",
            user_activity=0,
            user_stats=(0,) * 8,
            query_stats=(0,) * 8,
            history=msgspec.Raw(msgspec.msgpack.encode([])),
            query_clicks=msgspec.Raw(msgspec.msgpack.encode([])),
        )
        for example in PAGES
    ]
    scores = learner.score(nobody)
    assert bool(torch.isfinite(scores).all())
    assert scores.abs().max().item() < 10
