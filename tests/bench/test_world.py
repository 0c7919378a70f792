"""The simulated world as its benchmark measures it: shares, and the baselines and the ceiling of models."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.quality.ranking_quality import auc, page_gauc
from bench.world.benchmark import Row, WorldStats, measure_row, measure_world, read_log, run_reference_learner
from bench.world.reference_learner import LearnedParts
from prectr.stream.simulator import WorldSettings, make_world


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, Row], WorldStats]:
    rows, figures = measure_world(WorldSettings(pages=60_000, seed=0), learners=False)
    return {row.name: row for row in rows}, figures


def test_oracle_and_baselines_are_those_of_the_description(measured: tuple[dict[str, Row], WorldStats]) -> None:
    rows = measured[0]
    assert rows["oracle"].auc == pytest.approx(0.782, abs=0.01)
    assert rows["oracle"].gauc == pytest.approx(0.765, abs=0.01)
    assert rows["oracle"].auc_unexposed == pytest.approx(0.797, abs=0.01)
    assert rows["position × level"].auc == pytest.approx(0.7055, abs=0.01)
    assert rows["position alone"].auc == pytest.approx(0.6844, abs=0.01)
    assert rows["position alone"].gauc == pytest.approx(0.7106, abs=0.01)


def test_levels_candidates_and_users_have_the_shares_of_the_description(
    measured: tuple[dict[str, Row], WorldStats],
) -> None:
    figures = measured[1]
    np.testing.assert_allclose(figures.candidate_levels, [0.30, 0.25, 0.25, 0.20], atol=0.015)
    np.testing.assert_allclose(figures.exposed_levels, [0.02, 0.07, 0.27, 0.64], atol=0.04)
    np.testing.assert_allclose(figures.rest_levels, [0.35, 0.29, 0.25, 0.11], atol=0.03)
    assert figures.pages_of_rare_users == pytest.approx(0.27, abs=0.01)
    assert figures.pages_of_new_users == pytest.approx(0.31, abs=0.02)
    assert figures.zipf_exponent == pytest.approx(0.9, abs=1e-6)
    assert 900 <= figures.groups <= 1200


def test_auc_and_gauc_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 20, (300, 10)) / 20
    labels = (rng.random((300, 10)) < 0.15).astype(np.float64)
    chance = rng.random((300, 10))
    present = rng.random((300, 10)) < 0.8
    assert auc(scores.ravel(), labels.ravel()) == pytest.approx(
        roc_auc_score(labels.ravel(), scores.ravel()), abs=1e-12
    )
    twice = np.concatenate([scores.ravel()] * 2)
    classes = np.repeat([1, 0], scores.size)
    weights = np.concatenate([chance.ravel(), 1 - chance.ravel()])
    expected = roc_auc_score(classes, twice, sample_weight=weights)
    assert auc(scores.ravel(), chance.ravel()) == pytest.approx(expected, abs=1e-12)
    parts = [(labels[i][present[i]], scores[i][present[i]]) for i in range(300)]
    both = [(roc_auc_score(y, s), len(y)) for y, s in parts if 0 < y.sum() < len(y)]
    by_hand = np.average([value for value, _ in both], weights=[weight for _, weight in both])
    assert page_gauc(scores, labels, present) == pytest.approx(by_hand, abs=1e-12)


def test_reference_learner_lies_between_baseline_and_oracle() -> None:
    settings = WorldSettings(pages=2500, seed=0, queries=100, items=1000)
    world = make_world(settings)
    log = read_log(world)
    learned = measure_row(log, 0, "reference", *run_reference_learner(world, log, LearnedParts()))
    fixed = measure_row(log, 0, "neither", *run_reference_learner(world, log, LearnedParts(user=False, query=False)))
    oracle = measure_row(log, 0, "oracle", log.probability, log.u_probability)
    assert fixed.auc_expected < learned.auc_expected < oracle.auc_expected
