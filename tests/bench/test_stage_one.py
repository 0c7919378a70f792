"""The stage-one encoder of the synthetic world: pairs, label noise, and metrics of levels."""

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from bench.relevance.synthetic_queries import related_categories, synthetic_pairs, text_vectors
from bench.world.ground_truth import GroundTruth, make_log, read_truth
from bench.world.stage_one import (
    LevelSample,
    Recipe,
    add_label_noise,
    draw_graded_pairs,
    make_stage_one,
    make_uneven,
    mean_level_metrics,
)
from prectr.model.config import PretrainConfig
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.pretrain import predict_level_logits
from prectr.stream.simulator import WorldSettings, make_catalogue
from prectr.stream.simulator.vocabulary import DEPARTMENTS
from tests.kit.models.encoder import tiny_encoder

WORLD = WorldSettings(pages=400, seed=3, days=0.2, queries=40, items=1000, users=150)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("world")
    make_log(WORLD, folder)
    return read_truth(WORLD, folder)


def test_graded_pairs_are_candidates_with_their_levels_and_even_over_them() -> None:
    catalogue = make_catalogue(WorldSettings(pages=1, seed=77, queries=60, items=1000))
    known: dict[tuple[str, str], set[int]] = {}  # a title may stand for two items of a query
    for q, (items, levels) in enumerate(zip(catalogue.candidates, catalogue.levels, strict=True)):
        for item, level in zip(items.tolist(), levels.tolist(), strict=True):
            if item >= 0:
                known.setdefault((catalogue.queries[q], catalogue.titles[item]), set()).add(level)
    pairs = draw_graded_pairs(catalogue, Recipe(seed=77, pairs=2_000, wrong=0.0))
    assert len(pairs) == 2_000
    assert all(pair.level in known[pair.pair] for pair in pairs)
    of_all = np.bincount(catalogue.levels[catalogue.levels > 0], minlength=5)[1:] / (catalogue.levels > 0).sum()
    drawn = np.bincount([pair.level for pair in pairs], minlength=5)[1:] / len(pairs)
    np.testing.assert_allclose(drawn, of_all, atol=4 * np.sqrt(0.25 / len(pairs)))


def test_label_noise_changes_a_share_of_levels_by_one() -> None:
    true = np.repeat(np.arange(1, 5, dtype=np.uint8), 10_000)
    noisy = add_label_noise(true, 0.15, np.random.default_rng(5))
    wrong = noisy != true
    assert wrong.mean() == pytest.approx(0.15, abs=0.01)
    assert set(np.abs(noisy - true)[wrong].tolist()) == {1}
    assert set(noisy.tolist()) == {1, 2, 3, 4}
    inner = Counter((noisy - true)[(true == 2) & wrong].tolist())
    assert inner[-1] / inner.total() == pytest.approx(0.5, abs=0.05)


def test_encoder_is_made_once_with_words_and_pairs_of_another_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = PretrainConfig(vocab_size=400, distil_epochs=1, tune_epochs=1, batch_size=64)
    recipe = Recipe(seed=77, pairs=128, synthetic_pairs=64, queries=20, items=1000, training=training)
    folder = make_stage_one(recipe, tmp_path)
    encoder = load_encoder(folder)
    catalogue = make_catalogue(WorldSettings(pages=1, seed=77, queries=20, items=1000))
    assert {pair.title for pair in encoder.pairs} <= set(catalogue.titles)
    assert len(encoder.pairs) == 128
    assert encoder.header.provenance["recipe"]["pairs"] == 128
    assert [one["phase"] for one in encoder.header.provenance["passes"]] == ["distil", "tune"]
    plain = load_encoder(make_stage_one(msgspec.structs.replace(recipe, synthetic_pairs=0), tmp_path))
    assert [one["phase"] for one in plain.header.provenance["passes"]] == ["tune"]

    def pretrain(*arguments: object, **named: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("bench.world.stage_one.pretrain", pretrain)
    assert make_stage_one(recipe, tmp_path) == folder
    with pytest.raises(AssertionError, match="trained again"):
        make_stage_one(msgspec.structs.replace(recipe, seed=78), tmp_path)


def test_synthetic_queries_are_labelled_by_the_fields() -> None:
    catalogue = make_catalogue(WorldSettings(pages=1, seed=77, queries=200, items=2000))
    pairs, log_levels = synthetic_pairs(catalogue, 400, seed=3)
    fields = {
        title: (category, brand)
        for title, category, brand in zip(catalogue.titles, catalogue.categories, catalogue.brands, strict=True)
    }
    related = related_categories(catalogue)
    brands = set(catalogue.brands)
    np.testing.assert_allclose(np.exp(log_levels).sum(axis=1), 1.0, rtol=1e-5)
    seen = set()
    for (query, title), level in zip(pairs, (log_levels.argmax(axis=1) + 1).tolist(), strict=True):
        named = [category for category in related if query.endswith(category) or query.startswith(f"{category} ")]
        if len(named) != 1:
            continue
        category, brand = fields[title]
        brands_named = [word for word in query.split() if word in brands]
        if category != named[0]:
            assert level == (2 if category in related[named[0]] else 1), (query, title)
        elif brands_named and brands_named[0] != brand:
            assert level < 4, (query, title)
        else:
            assert level >= 2, (query, title)
        seen.add(level)
    assert seen == {1, 2, 3, 4}


def test_synonyms_have_similar_vectors_and_other_words_do_not() -> None:
    catalogue = make_catalogue(WorldSettings(pages=1, seed=77))
    words = ["kettle", "boiler", "headset", "earphones", "black", "azure", "nosuchword", ""]
    vectors = dict(zip(words, text_vectors(catalogue, words, seed=1), strict=True))
    assert vectors["kettle"] @ vectors["boiler"] > 0.3
    assert vectors["headset"] @ vectors["earphones"] > 0.3
    for one, other in (("kettle", "headset"), ("boiler", "earphones"), ("black", "azure"), ("kettle", "nosuchword")):
        assert abs(vectors[one] @ vectors[other]) < 0.3
    assert np.linalg.norm(vectors["nosuchword"]) == pytest.approx(1.0)
    assert not vectors[""].any()
    both = text_vectors(catalogue, ["kettle boiler"], seed=1)
    assert both.shape == (1, len(set(catalogue.categories)) + 64)


def test_related_categories_are_mostly_those_of_the_department() -> None:
    catalogue = make_catalogue(WorldSettings(pages=1, seed=1000))
    siblings = {one[0]: {other[0] for other in group} - {one[0]} for group in DEPARTMENTS.values() for one in group}
    found = related_categories(catalogue)
    assert sum(found[name] == siblings[name] for name in siblings) >= 34


def test_uneven_encoder_is_a_copy_with_fewer_pairs_of_some_levels(tmp_path: Path) -> None:
    whole = load_encoder(tiny_encoder())
    folder = tmp_path / "encoder"
    folder.symlink_to(tiny_encoder())
    thinned = load_encoder(make_uneven(folder, "low"))
    before, after = Counter(pair.level for pair in whole.pairs), Counter(pair.level for pair in thinned.pairs)
    assert thinned.sha256 == whole.sha256
    assert (after[3], after[4]) == (before[3], before[4])
    assert (after[1] + after[2]) / (before[1] + before[2]) == pytest.approx(0.7, abs=0.1)


def test_sample_is_from_the_slices_it_names(truth: GroundTruth) -> None:
    sample = LevelSample(truth)
    metrics = sample.metrics(np.full((len(sample.query), 4), 0.25))
    late = truth.shown.page >= truth.half
    never = truth.unexposed.shown_before == 0
    assert [(one.slice, one.impressions) for one in metrics] == [
        ("exposed", late.sum()),
        ("unexposed", len(never)),
        ("never shown", never.sum()),
    ]
    assert sample.level[: late.sum()].tolist() == truth.shown.level[late].tolist()
    assert sample.level[-never.sum() :].tolist() == truth.unexposed.level[never].tolist()
    catalogue = truth.world.catalogue
    assert sample.pairs[0] == (
        catalogue.queries[truth.query[truth.shown.page[late][0]]],
        catalogue.titles[truth.shown.item[late][0]],
    )


def test_level_metrics_agree_with_scikit_learn(truth: GroundTruth) -> None:
    sample = LevelSample(truth)
    encoder = load_encoder(tiny_encoder())
    probability = predict_level_logits(encoder.network, encoder.tokenizer, sample.pairs).double().softmax(1).numpy()
    found = {one.slice: one for one in sample.encoder_metrics(tiny_encoder())}["exposed"]
    true, predicted = sample.level[: found.impressions], probability[: found.impressions]
    assert found.accuracy == pytest.approx(accuracy_score(true, predicted.argmax(axis=1) + 1))
    assert found.log_loss == pytest.approx(log_loss(true, predicted, labels=[1, 2, 3, 4]))
    mean = mean_level_metrics([sample.encoder_metrics(tiny_encoder()), sample.encoder_metrics(tiny_encoder())])[
        "exposed"
    ]
    assert mean.accuracy == pytest.approx(found.accuracy)
    assert mean.impressions == 2 * found.impressions
