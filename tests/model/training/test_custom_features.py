"""Custom features in the trainer: what they are worth, and that resumed and data-parallel runs agree bit for bit."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import log_loss

from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.models.registry import MODELS
from prectr.model.training import permutation_importance
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.stream.records import Example
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.features import items_of, planted_examples, with_features, without_features
from tests.kit.models.threads import run_on_ranks

ALL = sorted(MODELS)
PLANTED = planted_examples(400, seed=3)
WANTED = {
    ("item", "quality", "number"),
    ("item", "noise", "number"),
    ("item", "colour", "string"),
    ("page", "hour", "number"),
    ("context", "device", "string"),
}


def _trained(examples: list[Example], **config: object) -> Trainer:
    trainer = Trainer(small_config(batch_pages=8, batch_span=1e9, **config))
    trainer.consume(examples, 0)
    trainer.flush()
    return trainer


def _second_half_loss(examples: list[Example], model: str) -> tuple[float, Trainer]:
    seen: list[BatchScores] = []
    trainer = Trainer(small_config(batch_pages=8, batch_span=1e9, model=model), seen.append)
    trainer.consume(examples, 0)
    half = seen[len(seen) // 2 :]
    labels = np.concatenate([scores.batch.labels for scores in half])
    logits = np.concatenate([scores.logits for scores in half])
    return float(log_loss(labels, 1 / (1 + np.exp(-logits)))), trainer


def _state(trainer: Trainer) -> bytes:
    return msgspec.msgpack.encode([trainer._slots.state, trainer._permutation_importance.state])


@pytest.mark.parametrize("model", ALL)
def test_a_feature_that_decides_clicks_lowers_the_loss_and_is_worth_most(model: str) -> None:
    """The clicks' own rates have a log loss of about 0.33; the mean rate alone has one of about 0.65."""
    blind, _ = _second_half_loss([without_features(example) for example in PLANTED], model)
    loss, trainer = _second_half_loss(PLANTED, model)
    assert loss < blind - 0.1
    summary = trainer.features_summary()
    assert {(each.source, each.name, each.kind) for each in summary.read} == WANTED
    worth = {each.name: each.importance or 0.0 for each in summary.read}
    assert worth["quality"] == max(worth.values())
    assert worth["quality"] > 0.05
    assert max(value for name, value in worth.items() if name != "quality") < 0.03


def test_values_are_counted_and_missing_ones_too() -> None:
    summary = {each.name: each for each in _trained(PLANTED, model="lr").features_summary().read}
    items = [item.features or {} for example in PLANTED for item in items_of(example)]
    quality = [value for each in items if isinstance(value := each.get("quality"), float)]
    found = summary["quality"]
    assert (found.values, found.missing) == (len(quality), len(items) - len(quality))
    assert (found.least, found.greatest) == (min(quality), 1e300)
    assert (summary["hour"].values, summary["hour"].missing) == (400, 0)
    assert (summary["device"].values, summary["device"].least) == (400, None)


@pytest.mark.parametrize("model", ALL)
def test_a_run_resumed_in_the_middle_equals_one_run_bit_for_bit(model: str, tmp_path: Path) -> None:
    examples = PLANTED[:120]
    undisturbed = _trained(examples, model=model)
    first = Trainer(small_config(model=model, batch_pages=8, batch_span=1e9))
    first.consume(examples[:77], 0)
    first.save(tmp_path)
    resumed = Trainer(small_config(model=model, batch_pages=8, batch_span=1e9))
    resumed.load(tmp_path)
    resumed.consume(examples[77:], 0)
    resumed.flush()
    assert resumed.weights_sha256() == undisturbed.weights_sha256()
    assert _state(resumed) == _state(undisturbed)
    assert resumed.quality.state() == undisturbed.quality.state()
    assert undisturbed._permutation_importance.state.samples == 1


@pytest.mark.parametrize("model", ["lr", "wide-deep+", "prectr"])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_have_the_slots_and_statistics_of_one_process_bit_for_bit(model: str, size: int) -> None:
    """Pages go round the ranks, so that each scores values that it has not seen; 5 pages a batch leave some idle."""

    def train(ranks: TorchProcessGroup | None) -> Trainer:
        trainer = Trainer(small_config(model=model, batch_pages=5, batch_span=1e9), process_group=ranks)
        trainer.consume(PLANTED[:52], 0)
        trainer.flush()
        return trainer

    alone = train(None)
    together = run_on_ranks(size, train)
    assert len({trainer.weights_sha256() for trainer in together}) == 1
    assert len({_state(trainer) for trainer in together}) == 1
    assert msgspec.msgpack.encode(together[0]._slots.state) == msgspec.msgpack.encode(alone._slots.state)
    for name, tensor in together[0]._model.weights().items():
        assert np.allclose(tensor.numpy(), alone._model.weights()[name].numpy(), rtol=0, atol=5e-5), name
    assert together[0]._permutation_importance.state.samples == alone._permutation_importance.state.samples == 1
    for own, one in zip(together[0].features_summary().read, alone.features_summary().read, strict=True):
        assert own.importance == pytest.approx(one.importance, abs=1e-5)


@pytest.mark.parametrize("model", ALL)
def test_measuring_the_worth_changes_nothing_that_is_learned(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _trained(PLANTED[:100], model=model)
    assert measured._permutation_importance.state.samples == 1
    monkeypatch.setattr(permutation_importance, "_is_measured", lambda batch_number: False)
    unmeasured = _trained(PLANTED[:100], model=model)
    assert unmeasured._permutation_importance.state.samples == 0
    assert unmeasured.weights_sha256() == measured.weights_sha256()
    assert unmeasured.quality.state() == measured.quality.state()


def test_the_worth_is_the_rise_of_the_loss_of_pages_with_exchanged_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle exchanges the values in the pages themselves; a page of two items is either exchanged or it is not."""
    pages = [example for example in PLANTED if len(example.labels) == 2][:8]
    trainer = _trained(PLANTED[:160], model="wide-deep+")
    before = trainer._permutation_importance.of(_number(trainer, "quality"))
    impressions, rise = before.impressions, before.rise
    monkeypatch.setattr(permutation_importance, "_is_measured", lambda batch_number: True)
    exchanged: list[Example] = []
    kept: list[Example] = []
    for page in pages:
        features = [dict(item.features or {}) for item in items_of(page)]
        swapped = [
            {name: value for name, value in own.items() if name != "quality"}
            | ({"quality": other["quality"]} if "quality" in other else {})
            for own, other in (features, features[::-1])
        ]
        context = {"context": {"device": "d1"}, "page": {"hour": 3.0}}
        kept.append(with_features(page, features, **context))  # type: ignore[arg-type]
        exchanged.append(with_features(page, swapped, **context))  # type: ignore[arg-type]
    base, other = ([_losses(trainer, page) for page in side] for side in (kept, exchanged))
    trainer.consume(kept, 0)
    after = trainer._permutation_importance.of(_number(trainer, "quality"))
    possible = {0.0}
    for one, two in zip(base, other, strict=True):
        possible |= {round(total + two - one, 4) for total in possible}
    assert after.impressions - impressions == 16
    measured = after.rise - rise
    assert min(abs(measured - each) for each in possible) < 2e-4
    assert max(possible) > 0.1


def _losses(trainer: Trainer, page: Example) -> float:
    logits = trainer.score([page], position=None)
    signs = np.where(np.frombuffer(page.labels, np.uint8) == 1, 1.0, -1.0)
    return float(np.log1p(np.exp(-signs * logits)).sum())


def _number(trainer: Trainer, name: str) -> int:
    return next(number for number, slot in enumerate(trainer._slots.slots) if slot.name == name)


@pytest.mark.parametrize("model", ALL)
def test_a_score_does_not_know_values_that_come_with_its_batch_or_after(model: str) -> None:
    """A feature that is first seen in a batch is not read in it, and the batch's own values move no statistics yet."""

    def logits(pages: list[Example], model: str) -> list[np.ndarray]:
        seen: list[np.ndarray] = []
        trainer = Trainer(small_config(model=model, batch_span=1e9), lambda scores: seen.append(scores.logits))
        trainer.consume(pages, 0)
        return seen

    plain = random_examples(16, seed=4)
    novel = [with_features(page, [{"new": 5.0 * row} for row in range(len(page.labels))]) for page in plain[4:8]]
    changed = [with_features(page, [{"new": 1e9 * row} for row in range(len(page.labels))]) for page in plain[4:8]]
    last = [with_features(page, [{"new": 5.0 * row} for row in range(len(page.labels))]) for page in plain[8:]]
    without, one, two = (logits([*plain[:4], *middle, *last], model) for middle in (plain[4:8], novel, changed))
    assert np.array_equal(without[1], one[1])
    assert np.array_equal(one[1], two[1])
    # Rows of lr start at zero: they say nothing before they have been learned from.
    assert not np.array_equal(without[3], one[3])
    assert not np.array_equal(one[3], two[3])


@pytest.mark.parametrize("model", ALL)
def test_values_without_bounds_give_finite_scores(model: str) -> None:
    huge = [1e300, -1e300, 5e-324, 0.0, -0.0, 1.7976931348623157e308]
    pages = [
        with_features(page, [{"x": huge[(row + number) % 6], "y": f"s{number}"} for row in range(len(page.labels))])
        for number, page in enumerate(random_examples(60, seed=8))
    ]
    trainer = _trained(pages, model=model)
    assert np.isfinite(trainer.score(pages)).all()
    assert all(np.isfinite(tensor.numpy()).all() for tensor in trainer._model.weights().values())


@pytest.mark.parametrize("model", ALL)
def test_missing_is_known_as_missing_and_unknown_values_are_scored(model: str) -> None:
    trainer = _trained(PLANTED, model=model, page_features=("none",), context_features=("none",))
    page = PLANTED[7]

    def score(features: dict[str, float | str]) -> float:
        everything = {"colour": "c1", "noise": 0.0} | features
        return float(trainer.score([with_features(page, [everything] * len(page.labels))])[0])

    low, missing, high = score({"quality": 100.0}), score({}), score({"quality": 20_000.0})
    assert low < missing < high
    assert np.isfinite(score({"colour": "never seen", "other": 3.0}))
    assert score({"quality": "a string"}) == missing


def test_the_settings_decide_what_is_read() -> None:
    named = _trained(
        PLANTED[:40], model="lr", item_features=("noise", "absent"), page_features=(), context_features=("none",)
    )
    assert [(each.source, each.name) for each in named.features_summary().read] == [("item", "noise")]
    limited = _trained(PLANTED[:40], model="lr", feature_limit=1).features_summary()
    assert [(each.source, each.name) for each in limited.read] == [
        ("page", "hour"),
        ("item", "colour"),
        ("context", "device"),
    ]
    assert limited.ignored["item"].keys() == {"noise", "quality"}


@pytest.mark.parametrize("model", ALL)
def test_settings_that_read_nothing_equal_a_log_without_features(model: str) -> None:
    off = {"item_features": ("none",), "page_features": (), "context_features": ("none",)}
    unread = _trained(PLANTED[:60], model=model, **off)
    without = _trained([without_features(example) for example in PLANTED[:60]], model=model)
    assert unread.weights_sha256() == without.weights_sha256()
