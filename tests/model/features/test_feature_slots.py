"""Custom features as a model reads them: standardised by what was seen before, with missing ones known as such."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.feature_slots import FeatureSlots, FeatureSlotsState
from prectr.model.features.hashing import hash_text
from prectr.model.features.observed_features import ObservedFeatures
from prectr.model.features.smoothing import PriorRates
from prectr.model.features.standardise import RunningMoments
from prectr.stream.records import Example
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.features import Features, planted_examples, with_features

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def _batch(examples: Sequence[Example], slots: FeatureSlots) -> Batch:
    return FeatureEncoder().encode(examples, PriorRates(64, 20.0), slots=slots)


def _pages(values: Sequence[Features | None]) -> list[Example]:
    """Pages whose items have these features, one after the other."""
    left = list(values)
    pages = []
    for example in random_examples(len(values), seed=6):
        if not left:
            break
        size = len(example.labels)
        own, left = [*left[:size], *[None] * (size - len(left[:size]))], left[size:]
        pages.append(with_features(example, own))
    assert not left
    return pages


def _seen(values: Sequence[Features | None], **config: object) -> FeatureSlots:
    slots = FeatureSlots(small_config(**config))
    slots.update(ObservedFeatures.of(_pages(values)))
    return slots


def _standardised(value: float, prefix: Sequence[float]) -> float:
    """The definition, over all values seen before: u = sign(z)·log2(1 + |z|) of z = (t − mean)/deviation."""
    logs = [math.copysign(math.log1p(abs(each)), each) for each in prefix]
    score = (math.copysign(math.log1p(abs(value)), value) - np.mean(logs)) / np.std(logs)
    return math.copysign(math.log2(1 + abs(score)), score)


def _read(slots: FeatureSlots, value: float | None) -> float:
    """What the knots say of a value: the mean of the two around it, by their weights, in units of u.

    The knots are found by trial: a value that lies on a knot has its hash first, with weight 1.
    """
    rows = _rows(slots, value)
    assert rows.weights[0, :2].sum() == pytest.approx(1)
    return float(rows.weights[0, 2]) * 2


def _rows(slots: FeatureSlots, value: float | str | None, name: str = "x") -> "FeatureRowsOfOne":
    features = None if value is None else {name: value}
    example = random_examples(1, seed=6)[0]
    batch = _batch([with_features(example, [features] * len(example.labels))], slots)
    return FeatureRowsOfOne(batch.item_features.hashes[:1], batch.item_features.weights[:1])


class FeatureRowsOfOne:
    """The row of the first item."""

    def __init__(self, hashes: np.ndarray, weights: np.ndarray) -> None:
        self.hashes, self.weights = hashes, weights


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_numbers_are_standardised_by_all_values_seen_before(batch_size: int) -> None:
    """Of values without outliers, whose moments are then plain ones; a batch reads those of the batches before it."""
    random = np.random.default_rng(3)
    values = random.uniform(50, 200, 400).tolist()
    slots = FeatureSlots(small_config())
    for start in range(0, 400, batch_size):
        if start >= 50:
            for value in (60.0, 100.0, 190.0, 300.0):
                assert _read(slots, value) == pytest.approx(_standardised(value, values[:start]), abs=1e-5)
        slots.update(ObservedFeatures.of(_pages([{"x": each} for each in values[start : start + batch_size]])))
    assert slots.slots[0].values == 400


def test_outliers_count_as_four_deviations() -> None:
    """The oracle goes through the batches by the definition; one value in ten is 1e300."""
    random = np.random.default_rng(5)
    moments = RunningMoments()
    kept: list[float] = []
    for number in range(40):
        values = np.where(random.random(20) < 0.1, 1e300, random.normal(100, 20, 20))
        if number == 0:
            values[:] = random.normal(100, 20, 20)
        logs = np.sign(values) * np.log1p(np.abs(values))
        if len(kept) >= 30:
            center, deviation = float(np.mean(kept)), float(np.std(kept))
        else:
            center = float(np.median(logs))
            deviation = 1.4826 * float(np.median(np.abs(logs - center)))
        kept += np.clip(logs, center - 4 * deviation, center + 4 * deviation).tolist()
        moments.add(values)
        assert moments.count == len(kept)
        assert moments.mean == pytest.approx(np.mean(kept), rel=1e-9)
        assert moments.deviation == pytest.approx(np.std(kept), rel=1e-9)
    assert moments.greatest == 1e300


def test_a_rare_sentinel_does_not_hide_the_differences_of_other_values() -> None:
    """One value in fifty is 1e300: plain moments would put all others within 0.02 deviations of each other."""
    random = np.random.default_rng(7)
    values = np.where(random.random(2000) < 0.02, 1e300, random.normal(100, 20, 2000)).tolist()
    slots = FeatureSlots(small_config())
    for start in range(0, 2000, 100):
        slots.update(ObservedFeatures.of(_pages([{"x": each} for each in values[start : start + 100]])))
    assert _read(slots, 120.0) - _read(slots, 80.0) > 1.0


def test_a_constant_reads_as_its_own_mean_and_another_value_as_far_from_it() -> None:
    slots = _seen([{"x": 5.0}] * 40)
    assert _read(slots, 5.0) == pytest.approx(0.0, abs=1e-6)
    assert _read(slots, 6.0) == 4.0


@given(values=st.lists(FINITE, min_size=1, max_size=40), asked=FINITE)
def test_any_finite_numbers_give_finite_moments_and_weights(values: list[float], asked: float) -> None:
    slots = _seen([{"x": value} for value in values])
    moments = slots.slots[0].moments
    assert all(map(math.isfinite, (moments.mean, moments.squares, moments.deviation)))
    assert (moments.least, moments.greatest) == (min(values), max(values))
    weights = _rows(slots, asked).weights
    assert np.isfinite(weights).all()
    assert (weights[0, :2] >= 0).all()
    assert abs(weights[0, 2]) <= 2


def test_values_between_two_knots_share_their_rows() -> None:
    """The knots lie half a unit of u apart; at a knot its weight is 1."""
    slots = _seen([{"x": value} for value in np.linspace(-3, 3, 61).tolist()])
    by_hash: dict[int, list[tuple[float, float]]] = {}
    for value in np.linspace(-3, 3, 61).tolist():
        rows = _rows(slots, value)
        for column in (0, 1):
            found = by_hash.setdefault(int(rows.hashes[0, column]), [])
            found.append((_read(slots, value), float(rows.weights[0, column])))
    for found in by_hash.values():
        peaks = [u + sign * 0.5 * (1 - weight) for u, weight in found for sign in (1, -1)]
        knots = {round(peak, 3) for peak in peaks if abs(peak * 2 - round(peak * 2)) < 1e-3}
        assert len(knots) >= 1
        assert any(all(abs(abs(u - knot) * 2 - (1 - weight)) < 1e-3 for u, weight in found) for knot in knots)


def test_missing_values_have_a_row_of_their_own() -> None:
    slots = _seen([{"x": 1.0, "s": "a"}, {"x": 2.0, "s": "b"}] * 20)
    missing, present = _rows(slots, None), _rows(slots, 1.5)
    assert missing.weights[0].tolist() == [1, 0, 0, 1]
    assert set(missing.hashes[0, :3].tolist()).isdisjoint(present.hashes[0, :3].tolist())
    assert len(set(missing.hashes[0].tolist())) == 2
    string = _rows(slots, "a", "s")
    assert string.hashes[0, 3] != missing.hashes[0, 3]
    assert string.hashes[0, :3].tolist() == missing.hashes[0, :3].tolist()
    for value in (math.nan, math.inf, -math.inf):
        assert _rows(slots, value).hashes[0].tolist() == missing.hashes[0].tolist()


def test_a_name_with_numbers_and_strings_has_two_slots() -> None:
    slots = _seen([{"x": 1.0}, {"x": "one"}, {"x": 2.0}])
    assert [(slot.name, slot.kind, slot.values) for slot in slots.slots] == [("x", "number", 2), ("x", "string", 1)]
    number, string, missing = _rows(slots, 1.0), _rows(slots, "one"), _rows(slots, None)
    assert number.hashes[0, 3] == missing.hashes[0, 3]
    assert string.hashes[0, :3].tolist() == missing.hashes[0, :3].tolist()
    assert number.hashes[0, 0] != missing.hashes[0, 0]
    assert string.hashes[0, 3] != missing.hashes[0, 3]


def test_equal_values_of_two_features_or_sources_have_unrelated_rows() -> None:
    slots = FeatureSlots(small_config())
    (example,) = random_examples(1, seed=6)
    page = with_features(
        example, [{"a": "same", "b": "same"}] * len(example.labels), page={"a": "same"}, context={"a": "same"}
    )
    slots.update(ObservedFeatures.of([page]))
    batch = _batch([page], slots)
    hashes = [*batch.item_features.hashes[0].tolist(), *batch.page_features.hashes[0].tolist()]
    assert len(set(hashes)) == 4
    assert hash_text("same") not in hashes


def test_pages_observed_with_and_without_decoding_are_the_same() -> None:
    examples = planted_examples(20, seed=5) + random_examples(20, seed=5)
    decoded = FeatureEncoder().encode(examples, PriorRates(64, 20.0)).observed
    skipped = ObservedFeatures.of(examples)
    assert decoded.columns == skipped.columns
    assert (
        (decoded.pages, decoded.items) == (skipped.pages, skipped.items) == (40, sum(len(e.labels) for e in examples))
    )


def test_slots_are_assigned_in_the_order_first_seen_up_to_the_limit() -> None:
    slots = _seen([{"b": 1.0}, {"a": 1.0, "c": "x"}, {"a": "x"}, {"d": 1.0}], feature_limit=3)
    assert [(slot.name, slot.kind) for slot in slots.slots] == [("b", "number"), ("a", "number"), ("c", "string")]
    assert slots.state.ignored == {"item": {"a": 1, "d": 1}}


def test_ignored_names_are_bounded() -> None:
    slots = _seen([{f"name {number}": 1.0} for number in range(200)], item_features=("none",))
    assert len(slots.state.ignored["item"]) == 32
    assert slots.slots == []


def test_the_state_restores_every_bit() -> None:
    examples = planted_examples(40, seed=2)
    slots, restored = FeatureSlots(small_config()), FeatureSlots(small_config())
    slots.update(ObservedFeatures.of(examples[:20]))
    encoded = msgspec.msgpack.encode(slots.state)
    restored.load_state(msgspec.msgpack.decode(encoded, type=FeatureSlotsState))
    for each in (slots, restored):
        each.update(ObservedFeatures.of(examples[20:]))
    assert msgspec.msgpack.encode(slots.state) == msgspec.msgpack.encode(restored.state)
    own, other = _batch(examples, slots), _batch(examples, restored)
    assert np.array_equal(own.item_features.hashes, other.item_features.hashes)
    assert np.array_equal(own.page_features.weights, other.page_features.weights)
