"""The quality sketch against scikit-learn, by hand, and as something that adds."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from prectr.model.quality.sketch import PAGE_COUNT, SKETCH_VERSION, QualitySketch, SketchState
from prectr.state.errors import CheckpointError, TrainingError

Page = tuple[list[float], list[int]]

# Coarse logits on purpose: ties within a page, and within a bin across pages, are common.
items = st.tuples(st.one_of(st.integers(-24, 8).map(lambda z: z / 2), st.floats(-40, 40)), st.integers(0, 1))
pages = st.lists(st.lists(items, min_size=1, max_size=12), max_size=12)


def arrays(of: list[list[tuple[float, int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flat = [item for page in of for item in page]
    return (
        np.array([z for z, _ in flat], np.float64),
        np.array([y for _, y in flat], np.uint8),
        np.cumsum([0, *(len(page) for page in of)], dtype=np.int64),
    )


def sketch_of(of: list[list[tuple[float, int]]]) -> QualitySketch:
    out = QualitySketch()
    out.add(*arrays(of))
    return out


def simulated(count: int, mean: float, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, count)
    logits = rng.normal(mean, spread, sizes.sum())
    labels = (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return logits, labels, np.concatenate(([0], np.cumsum(sizes)))


@pytest.mark.parametrize(("mean", "spread"), [(-4.5, 1.0), (-2.5, 1.5), (-2.0, 0.3), (-7.0, 1.5)])
def test_auc_from_bins_is_within_5e_5_of_scikit_learns_on_all_scores(mean: float, spread: float) -> None:
    logits, labels, starts = simulated(50_000, mean, spread, 1)
    sketch = QualitySketch()
    sketch.add(logits, labels, starts)
    assert sketch.auc == pytest.approx(roc_auc_score(labels, logits), abs=5e-5)


def test_log_loss_entropy_and_calibration_are_scikit_learns() -> None:
    logits, labels, starts = simulated(5_000, -2.5, 1.5, 2)
    sketch = QualitySketch()
    sketch.add(logits, labels, starts)
    p = 1 / (1 + np.exp(-logits))
    expected = log_loss(labels, p)
    base = log_loss(labels, np.full(len(labels), labels.mean()))
    assert sketch.log_loss == pytest.approx(expected, abs=1e-8)
    assert sketch.normalized_entropy == pytest.approx(expected / base, abs=1e-7)
    assert sketch.calibration == pytest.approx(p.mean() / labels.mean(), abs=1e-7)
    assert (sketch.pages, sketch.impressions, sketch.clicks) == (5_000, len(labels), labels.sum())


@given(pages)
def test_gauc_is_the_impression_weighted_mean_of_scikit_learns_page_auc(of: list[list[tuple[float, int]]]) -> None:
    total = weight = 0.0
    for page in of:
        labels = [y for _, y in page]
        if 0 < sum(labels) < len(labels):
            total += len(page) * roc_auc_score(labels, [z for z, _ in page])
            weight += len(page)
    got = sketch_of(of).gauc
    assert got is None if not weight else got == pytest.approx(total / weight, abs=1e-7)


@given(pages.filter(bool))
def test_log_loss_is_the_mean_over_impressions_computed_one_by_one(of: list[list[tuple[float, int]]]) -> None:
    losses = [math.log1p(math.exp(-z if y else z)) for page in of for z, y in page]
    assert sketch_of(of).log_loss == pytest.approx(sum(losses) / len(losses), abs=1e-7)


def test_ties_count_half_and_single_class_pages_are_left_out_of_gauc() -> None:
    # Page 1: clicked 1.0 against 1.0 (tie, half) and 0.0 (won): 0.75, weight 3. Page 2: all clicked: no weight.
    # Page 3: clicked 0.0 below 2.0: 0, weight 2.
    sketch = sketch_of([[(1.0, 1), (1.0, 0), (0.0, 0)], [(3.0, 1), (2.0, 1)], [(0.0, 1), (2.0, 0)]])
    assert sketch.gauc_weight == 5
    assert sketch.gauc == pytest.approx(0.75 * 3 / 5, abs=1e-8)


def test_equal_logits_on_neighbouring_pages_are_not_a_tie() -> None:
    sketch = sketch_of([[(0.0, 0), (1.0, 1)], [(1.0, 0), (2.0, 1)]])
    assert sketch.gauc == 1.0


@given(pages, pages)
def test_merged_sketches_are_the_sketch_of_everything_to_the_last_bit(
    left: list[list[tuple[float, int]]], right: list[list[tuple[float, int]]]
) -> None:
    merged = sketch_of(left)
    merged.merge(sketch_of(right))
    assert merged == sketch_of(left + right)
    assert merged.encode() == sketch_of(left + right).encode()


@given(pages, pages, pages)
def test_merging_is_associative_and_commutes(
    a: list[list[tuple[float, int]]], b: list[list[tuple[float, int]]], c: list[list[tuple[float, int]]]
) -> None:
    x, y, z = sketch_of(a), sketch_of(b), sketch_of(c)
    left = QualitySketch.total([QualitySketch.total([x, y]), z])
    right = QualitySketch.total([z, QualitySketch.total([y, x])])
    assert left == right
    assert left.stats() == right.stats()


@given(pages)
def test_a_sketch_survives_encoding_bit_for_bit(of: list[list[tuple[float, int]]]) -> None:
    sketch = sketch_of(of)
    wire = msgspec.msgpack.encode(sketch.encode())
    assert QualitySketch.decode(msgspec.msgpack.decode(wire, type=SketchState)) == sketch


@pytest.mark.parametrize("count", [1, 255, 256, 65_535, 65_536, 1 << 32])
def test_counts_of_any_size_survive_encoding(count: int) -> None:
    sketch = QualitySketch()
    sketch.values[7] = count
    sketch.values[PAGE_COUNT - 1] = 1
    assert QualitySketch.decode(sketch.encode()) == sketch


def test_metrics_are_none_where_they_are_undefined() -> None:
    empty = QualitySketch()
    empty.add(np.empty(0), np.empty(0, np.uint8), np.zeros(1, np.int64))
    figures = empty.stats()
    assert (figures.pages, figures.impressions, figures.clicks) == (0, 0, 0)
    assert {figures.auc, figures.gauc, figures.log_loss, figures.normalized_entropy, figures.calibration} == {None}
    assert empty.calibration_curve() == []
    unclicked = sketch_of([[(0.0, 0), (1.0, 0)]])
    assert (unclicked.auc, unclicked.gauc, unclicked.normalized_entropy, unclicked.calibration) == (None,) * 4
    assert unclicked.log_loss == pytest.approx((math.log(2) + math.log1p(math.e)) / 2, abs=1e-7)
    clicked = sketch_of([[(0.0, 1)]])
    assert (clicked.auc, clicked.normalized_entropy, clicked.calibration) == (None, None, pytest.approx(0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused_and_nothing_is_counted(bad: float) -> None:
    sketch = QualitySketch()
    with pytest.raises(TrainingError, match=r"logit 1 of 3 .*diverged"):
        sketch.add(np.array([0.0, bad, 1.0]), np.zeros(3, np.uint8), np.array([0, 3]))
    assert sketch == QualitySketch()


def test_a_copy_is_not_touched_by_later_pages() -> None:
    sketch = sketch_of([[(0.0, 1), (1.0, 0)]])
    before = sketch.copy()
    sketch.add(*arrays([[(0.0, 0)]]))
    assert before.impressions == 2
    assert sketch.impressions == 3


def test_calibration_curve_gives_the_mean_prediction_and_the_click_rate_of_each_group() -> None:
    logits, labels, starts = simulated(20_000, -2.5, 1.5, 3)
    sketch = QualitySketch()
    sketch.add(logits, labels, starts)
    curve = sketch.calibration_curve(10)
    assert len(curve) == 10
    assert sum(point.impressions for point in curve) == len(labels)
    # The groups are runs of the scores in ascending order; cut the sorted scores at the same places.
    order, done = np.argsort(logits), 0
    p = 1 / (1 + np.exp(-logits))
    for point in curve:
        group = order[done : done + point.impressions]
        done += point.impressions
        assert point.impressions == pytest.approx(len(labels) / 10, rel=0.1)
        assert point.predicted == pytest.approx(p[group].mean(), rel=2e-3)
        assert point.observed == pytest.approx(labels[group].mean(), abs=2e-3)


def test_a_sketch_of_another_version_or_corrupt_is_rejected() -> None:
    state = sketch_of([[(0.0, 1), (1.0, 0)]]).encode()
    replace = msgspec.structs.replace
    with pytest.raises(CheckpointError, match="version 9"):
        QualitySketch.decode(replace(state, version=SKETCH_VERSION + 8))
    for bins, counts in [
        (state.bins[:-1], state.counts),
        (state.bins, state.counts[:-1]),
        (state.bins, state.counts * 3),
        (b"", state.counts),
        (b"\xff\xff\xff\xff", state.counts),
        (state.bins[:2] * 2, state.counts),
    ]:
        with pytest.raises(CheckpointError, match="corrupt"):
            QualitySketch.decode(replace(state, bins=bins, counts=counts))
