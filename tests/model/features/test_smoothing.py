import numpy as np
import pytest

from prectr.model.features.hashing import hash_text
from prectr.model.features.smoothing import PriorRates


def _hashes(*names: str) -> np.ndarray:
    return np.array([hash_text(name) for name in names], dtype=np.uint64)


def test_before_the_first_click_every_rate_is_the_prior() -> None:
    rates = PriorRates(64, 20.0).smoothed_rates(_hashes("a"), np.array([0]), np.zeros((1, 8)), np.zeros((1, 8)))
    for rate in (rates.category, rates.query, rates.user):
        assert rate == pytest.approx(np.full((1, 4), 0.1))


def test_a_query_leans_on_its_items_category_and_that_on_the_level() -> None:
    parents = PriorRates(1 << 16, 10.0)
    # Category a: level 4 shown 30 times, 12 clicks; category b: level 4 shown 10 times, no click.
    parents.update(_hashes(*["a"] * 30), np.full(30, 4, np.uint8), np.array([1] * 12 + [0] * 18, np.uint8))
    parents.update(_hashes(*["b"] * 10), np.full(10, 4, np.uint8), np.zeros(10, np.uint8))
    query = np.array([[0, 0, 0, 5, 0, 0, 0, 3]], dtype=np.float64)
    rates = parents.smoothed_rates(_hashes("a", "b"), np.array([0, 0]), query, np.zeros((1, 8)))
    overall = (12 + 20 * 0.1) / (40 + 20)
    level_4, level_1 = (12 + 20 * overall) / (40 + 20), overall
    in_a, in_b = (12 + 10 * level_4) / (30 + 10), (0 + 10 * level_4) / (10 + 10)
    assert rates.category == pytest.approx(np.array([[level_1] * 3 + [in_a], [level_1] * 3 + [in_b]]))
    assert rates.query[:, 3] == pytest.approx([(3 + 10 * in_a) / 15, (3 + 10 * in_b) / 15])
    assert rates.user == pytest.approx(rates.category)
    assert rates.query_impressions[0].tolist() == [0, 0, 0, 5]
    assert rates.query_clicks[0].tolist() == [0, 0, 0, 3]


def _rate_of_unknown_category(impressions: list[int], clicks: list[int]) -> list[float]:
    """The rates by level of a category without impressions: those of the level overall."""
    rates = PriorRates(1 << 16, 10.0)
    for level, (shown, clicked) in enumerate(zip(impressions, clicks, strict=True), 1):
        labels = np.array([1] * clicked + [0] * (shown - clicked), np.uint8)
        rates.update(_hashes(*["a"] * shown), np.full(shown, level, np.uint8), labels)
    none = np.zeros((1, 8))
    found: list[float] = rates.smoothed_rates(_hashes("b"), np.array([0]), none, none).category[0].tolist()
    return found


def test_a_level_that_was_hardly_shown_borrows_less_the_more_it_was_shown() -> None:
    """Level 2, of 20 impressions for a rate of its own: with 0, half-way in log-odds; with 5, a quarter its own."""
    for shown in (0, 5):
        total = 1000 + shown + 1000
        overall = (100 + 400 + 20 * 0.1) / (total + 20)
        level_1, level_3 = (100 + 20 * overall) / 1020, (400 + 20 * overall) / 1020
        odds = (level_1 / (1 - level_1) * level_3 / (1 - level_3)) ** 0.5
        prior = shown / 20 * overall + (1 - shown / 20) * odds / (1 + odds)
        found = _rate_of_unknown_category([1000, shown, 1000, 0], [100, 0, 400, 0])
        assert found[:3] == pytest.approx([level_1, 20 * prior / (shown + 20), level_3])
        assert found[3] / (1 - found[3]) == pytest.approx(2 * level_3 / (1 - level_3))


def test_at_the_start_of_a_log_nothing_is_borrowed() -> None:
    """Of 1,999 impressions; of 2,000, the same level 1 borrows."""
    overall = (2 + 30 + 20 * 0.1) / (1999 + 20)
    own = (2 + 20 * overall) / 22
    assert _rate_of_unknown_category([2, 900, 900, 197], [2, 0, 0, 30])[0] == pytest.approx(own)
    assert _rate_of_unknown_category([2, 900, 900, 198], [2, 0, 0, 30])[0] < own - 0.001


def test_counts_of_a_batch_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    names = [f"c{number}" for number in random.integers(0, 9, 200)]
    levels, labels = random.integers(1, 5, 200).astype(np.uint8), random.integers(0, 2, 200).astype(np.uint8)
    parents = PriorRates(1 << 16, 20.0)
    parents.update(_hashes(*names), levels, labels)
    expected: dict[tuple[str, int], list[int]] = {}
    for name, level, label in zip(names, levels.tolist(), labels.tolist(), strict=True):
        shown = expected.setdefault((name, level), [0, 0])
        shown[0] += 1
        shown[1] += label
    assert sorted(parents.impressions[parents.impressions > 0]) == sorted(n for n, _ in expected.values())
    assert parents.clicks.sum() == sum(c for _, c in expected.values())


def test_any_number_of_categories_fits_in_the_slots() -> None:
    parents = PriorRates(16, 20.0)
    parents.update(_hashes(*map(str, range(1000))), np.ones(1000, np.uint8), np.zeros(1000, np.uint8))
    assert parents.impressions.shape == (16, 4)
    assert parents.impressions.sum() == 1000


def test_restored_counts_give_the_same_rates() -> None:
    random = np.random.default_rng(0)
    names = _hashes(*(f"c{number}" for number in random.integers(0, 9, 200)))
    levels, labels = random.integers(1, 5, 200).astype(np.uint8), random.integers(0, 2, 200).astype(np.uint8)
    counted, restored = PriorRates(64, 20.0), PriorRates(64, 20.0)
    counted.update(names, levels, labels)
    restored.load_counts(counted.impressions.copy(), counted.clicks.copy())
    stats, page_of = np.zeros((1, 8)), np.zeros(200, dtype=np.int64)
    assert np.array_equal(
        counted.smoothed_rates(names, page_of, stats, stats).category,
        restored.smoothed_rates(names, page_of, stats, stats).category,
    )


def test_counts_of_another_number_of_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="prior rates have shape"):
        PriorRates(64, 20.0).load_counts(np.zeros((32, 4)), np.zeros((32, 4)))
