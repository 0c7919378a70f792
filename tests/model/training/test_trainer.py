import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from prectr.model.models.registry import MODELS
from prectr.model.training.trainer import BatchScores, Trainer
from prectr.state.errors import ConfigError, TrainingError
from prectr.stream.records import Example
from tests.kit.models.examples import START, WINDOW, random_examples, small_config, with_labels

EXAMPLES = random_examples(60, seed=7)
ALL = sorted(MODELS)


def _scores(examples: list[Example], **config: object) -> list[BatchScores]:
    seen: list[BatchScores] = []
    trainer = Trainer(small_config(**config), seen.append)
    trainer.consume(examples, 0)
    trainer.flush()
    return seen


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("pages", [8, 30])
def test_a_resumed_trainer_ends_like_an_undisturbed_one_bit_for_bit(model: str, pages: int, tmp_path: Path) -> None:
    undisturbed = Trainer(small_config(model=model))
    undisturbed.consume(EXAMPLES, 0)
    undisturbed.flush()
    first = Trainer(small_config(model=model))
    first.consume(EXAMPLES[:pages], 0)
    first.save(tmp_path)
    resumed = Trainer(small_config(model=model))
    resumed.load(tmp_path)
    assert resumed.weights_sha256() == first.weights_sha256()
    resumed.consume(EXAMPLES[pages:], 0)
    resumed.flush()
    assert resumed.weights_sha256() == undisturbed.weights_sha256()
    assert resumed.quality.state() == undisturbed.quality.state()
    assert resumed.resamples.state() == undisturbed.resamples.state()
    assert resumed.reranking.state() == undisturbed.reranking.state()
    assert resumed.query_losses.state() == undisturbed.query_losses.state()
    assert (resumed.batches, resumed.pages_trained) == (undisturbed.batches, undisturbed.pages_trained)
    assert resumed.pages_trained == 60


@settings(max_examples=8)
@given(splits=st.lists(st.integers(0, 60), max_size=8), model=st.sampled_from(ALL), line=st.integers(0, START * 2))
def test_weights_do_not_depend_on_how_examples_are_split_into_calls(splits: list[int], model: str, line: int) -> None:
    whole = Trainer(small_config(model=model))
    whole.consume(EXAMPLES, 0)
    pieces = Trainer(small_config(model=model))
    bounds = [0, *sorted(splits), 60]
    for start, end in itertools.pairwise(bounds):
        pieces.consume(EXAMPLES[start:end], line)
    assert pieces.weights_sha256() == whole.weights_sha256()
    assert pieces.batches == whole.batches


def _pages_at(seconds: list[float]) -> list[Example]:
    random = random_examples(len(seconds))
    closes = [START + WINDOW + round(second * 1000) for second in seconds]
    return [
        type(e)(when, *(getattr(e, name) for name in e.__struct_fields__[1:]))
        for e, when in zip(random, closes, strict=True)
    ]


def test_a_batch_ends_when_effective_close_passes_its_first_pages_by_the_span() -> None:
    examples = _pages_at([0, 30, 60, 60.001, 100, 121, 500])
    batches = _scores(examples, batch_pages=100, batch_span=60.0)
    assert [scores.batch.pages for scores in batches] == [3, 2, 1, 1]


def test_a_batch_ends_at_batch_pages() -> None:
    assert [scores.batch.pages for scores in _scores(_pages_at([0] * 11), batch_pages=4)] == [4, 4, 3]


def test_the_open_batch_is_neither_trained_nor_measured_until_flushed() -> None:
    trainer = Trainer(small_config(batch_pages=16, batch_span=1e9))
    start = trainer.weights_sha256()
    trainer.consume(EXAMPLES[:15], watermark=2**60)
    assert trainer.weights_sha256() == start
    assert trainer.quality.segments()["all"].pages == trainer.pages_trained == trainer.batches == 0
    trainer.flush()
    assert trainer.weights_sha256() != start
    assert trainer.quality.segments()["all"].pages == trainer.pages_trained == 15
    trainer.flush()
    assert trainer.batches == 1


@pytest.mark.parametrize("model", ALL)
def test_a_measured_score_does_not_know_its_own_batchs_clicks(model: str) -> None:
    flipped = [with_labels(e, [1 - label for label in e.labels]) for e in EXAMPLES[8:12]]
    true, other = (
        _scores(EXAMPLES[:8] + batch + EXAMPLES[12:16], model=model, batch_span=1e9)
        for batch in (EXAMPLES[8:12], flipped)
    )
    assert np.array_equal(true[2].logits, other[2].logits)
    assert not np.array_equal(true[3].logits, other[3].logits)


@pytest.mark.parametrize("model", ALL)
def test_the_measured_score_is_that_of_the_true_position_before_learning(model: str) -> None:
    trainer = Trainer(small_config(model=model, batch_span=1e9), lambda scores: seen.append(scores.logits))
    seen: list[np.ndarray] = []
    trainer.consume(EXAMPLES[:40], 0)
    before = trainer.score(EXAMPLES[40:44], position=None)
    ranked = trainer.score(EXAMPLES[40:44])
    trainer.consume(EXAMPLES[40:44], 0)
    assert seen[-1] == pytest.approx(before, abs=1e-6)
    assert not np.allclose(ranked, before)


@pytest.mark.parametrize("model", ALL)
def test_scoring_learns_nothing(model: str) -> None:
    trainer = Trainer(small_config(model=model))
    trainer.consume(EXAMPLES[:20], 0)
    weights = trainer.weights_sha256()
    trainer.score(EXAMPLES[20:30])
    assert trainer.weights_sha256() == weights


@pytest.mark.parametrize("model", ALL)
def test_a_loss_that_is_not_finite_stops_before_weights_are_touched(model: str) -> None:
    trainer = Trainer(small_config(model=model, batch_span=1e9))
    trainer.consume(EXAMPLES[:20], 0)
    for tensor in trainer._model.weights().values():
        tensor[0] = torch.nan
    before = {name: tensor.clone() for name, tensor in trainer._model.weights().items()}
    with pytest.raises(TrainingError, match=r"click loss.*'r00020', 'r00021', 'r00022', 'r00023'"):
        trainer.consume(EXAMPLES[20:24], 0)
    for name, tensor in trainer._model.weights().items():
        assert torch.equal(tensor.nan_to_num(7.0), before[name].nan_to_num(7.0))
    assert trainer.batches == 5


def test_quality_is_that_of_the_scores_measured() -> None:
    seen: list[BatchScores] = []
    trainer = Trainer(small_config(), seen.append)
    trainer.consume(EXAMPLES, 0)
    trainer.flush()
    labels = np.concatenate([scores.batch.labels for scores in seen])
    logits = np.concatenate([scores.logits for scores in seen])
    figures = trainer.quality.segments()["all"].stats()
    assert figures.auc == pytest.approx(roc_auc_score(labels, logits), abs=2e-3)
    assert figures.log_loss == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits))), abs=1e-6)
    assert figures.impressions == len(labels)


@pytest.mark.parametrize("model", ALL)
def test_models_learn_that_position_and_level_matter(model: str) -> None:
    # Levels here are at random, so no text tells them.
    seen = _scores(random_examples(1500, seed=9), model=model, level_source="logged", batch_pages=8, batch_span=1e9)[
        90:
    ]
    labels = np.concatenate([scores.batch.labels for scores in seen])
    logits = np.concatenate([scores.logits for scores in seen])
    # The clicks' own rate, 0.1 · level / √position, has an AUC of about 0.68 here.
    true = np.concatenate([s.batch.levels / np.sqrt(s.batch.positions) for s in seen])
    assert roc_auc_score(labels, logits) > 0.5 + 0.75 * (roc_auc_score(labels, true) - 0.5)


def test_the_digest_of_weights_sees_every_tensor() -> None:
    trainer = Trainer(small_config())
    digests = {trainer.weights_sha256()}
    weights = trainer._model.weights()
    for tensor in weights.values():
        tensor.view(-1)[-1] += 1
        digests.add(trainer.weights_sha256())
    assert len(digests) == len(weights) + 1


def test_another_seed_gives_other_weights_and_the_same_seed_the_same() -> None:
    first, same, other = (Trainer(small_config(seed=seed)).weights_sha256() for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize(
    ("setting", "value"),
    [("batch_pages", 0), ("batch_span", -1.0), ("device", "tpu"), ("embedding_rows", 5), ("model", "none")],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{setting}"):
        Trainer(small_config(**{setting: value}))
