import dataclasses

import msgspec
import numpy as np
import pytest

from prectr.model.features.aggregate_features import RATE_FEATURES, intercept_and_slope, rate_features, recent_shifts
from prectr.model.features.batch import FeatureEncoder
from prectr.model.features.smoothing import PriorRates
from tests.kit.models.examples import random_examples
from tests.kit.models.shifts import shifts_of


def test_tilts_are_one_newton_step_on_the_penalised_likelihood() -> None:
    random = np.random.default_rng(1)
    shown = random.integers(0, 50, (20, 4)).astype(float)
    clicks = random.binomial(shown.astype(int), 0.3).astype(float)
    expected = random.uniform(0.02, 0.4, (20, 4))
    offset, slope = intercept_and_slope(shown, clicks, expected)
    steps = np.array([-1.5, -0.5, 0.5, 1.5])

    def loss(theta: np.ndarray, row: int) -> float:
        logit = np.log(expected[row] / (1 - expected[row])) + theta[0] + theta[1] * steps
        likelihood = clicks[row] * -np.log1p(np.exp(-logit)) + (shown[row] - clicks[row]) * -np.log1p(np.exp(logit))
        return float(-likelihood.sum() + (theta**2).sum() / (2 * 0.7**2))

    h = 1e-4
    unit = np.eye(2) * h
    for row in range(20):
        zero = np.zeros(2)
        gradient = np.array([(loss(u, row) - loss(-u, row)) / (2 * h) for u in unit])
        hessian = np.array(
            [
                [
                    (loss(u + v, row) - loss(u - v, row) - loss(v - u, row) + loss(-u - v, row)) / (4 * h * h)
                    for v in unit
                ]
                for u in unit
            ]
        )
        step = zero - np.linalg.solve(hessian, gradient)
        assert (offset[row], slope[row]) == pytest.approx(tuple(step), abs=1e-4)


def test_recent_shifts_are_newton_steps_from_the_rates_of_all_clicks() -> None:
    batch = FeatureEncoder().encode(random_examples(5), PriorRates(64, 20.0))
    intercept, slope = recent_shifts(batch)
    assert intercept.shape == slope.shape == (batch.impressions, 3)
    for n in range(batch.impressions):
        for number, expected in shifts_of(batch, n):
            assert (intercept[n, number], slope[n, number]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_query_whose_clicks_have_moved_to_irrelevant_items_shifts_first_at_the_shortest_half_life() -> None:
    """Strict until six hours ago: 40 impressions a level; since then 10 a level, all clicks at level 1."""
    before = np.array([40.0, 40.0, 40.0, 40.0, 0.0, 2.0, 8.0, 20.0])
    since = np.array([10.0, 10.0, 10.0, 10.0, 5.0, 2.0, 0.0, 0.0])
    sums = tuple(tuple(before * share + since) for share in (0.1, 0.8))
    (example,) = random_examples(1)
    example = msgspec.structs.replace(example, query_stats=tuple((before + since).astype(int)), query_decayed=sums)
    _, slope = recent_shifts(FeatureEncoder().encode([example], PriorRates(64, 20.0)))
    assert (slope[:, 0] < slope[:, 1]).all()
    assert (slope[:, 1] < 0).all()


def test_without_decayed_sums_there_is_no_shift() -> None:
    (example,) = random_examples(1)
    example = msgspec.structs.replace(example, query_decayed=((0.0,) * 8,))
    intercept, slope = recent_shifts(FeatureEncoder().encode([example], PriorRates(64, 20.0)))
    assert intercept.shape == (len(example.labels), 1)
    assert not intercept.any()
    assert not slope.any()


def test_without_impressions_there_is_no_tilt() -> None:
    offset, slope = intercept_and_slope(np.zeros((3, 4)), np.zeros((3, 4)), np.full((3, 4), 0.1))
    assert offset.tolist() == slope.tolist() == [0.0, 0.0, 0.0]


def test_who_clicks_only_what_is_relevant_has_a_positive_slope() -> None:
    shown = np.full((1, 4), 20.0)
    _, strict = intercept_and_slope(shown, np.array([[0.0, 0.0, 4.0, 9.0]]), np.full((1, 4), 0.15))
    _, lenient = intercept_and_slope(shown, np.array([[6.0, 4.0, 2.0, 1.0]]), np.full((1, 4), 0.15))
    assert strict[0] > 0.2
    assert lenient[0] < -0.2


def test_the_features_do_not_use_the_labels() -> None:
    examples = random_examples(5)
    batch = FeatureEncoder().encode(examples, PriorRates(64, 20.0))
    numbers = rate_features(batch)
    assert numbers.shape == (batch.impressions, RATE_FEATURES)
    assert np.array_equal(rate_features(dataclasses.replace(batch, labels=1 - batch.labels)), numbers)
    assert np.isfinite(numbers).all()
