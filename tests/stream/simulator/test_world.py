"""The simulated world: its catalogues, users and click model."""

from collections import Counter

import numpy as np
import pytest

from prectr.stream.simulator import Catalogue, World, WorldSettings, make_catalogue, make_world
from prectr.stream.simulator.catalogue import item_groups
from prectr.stream.simulator.chorus import GradedProduct, chorus_category, graded_products
from prectr.stream.simulator.clicks import logit_components
from prectr.stream.simulator.synthetic import grade


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return make_catalogue(WorldSettings(pages=1, seed=0))


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldSettings(pages=1000, seed=7))


def test_synthetic_catalogue_has_the_sizes_of_the_description(catalogue: Catalogue) -> None:
    assert len(set(catalogue.item_ids)) == 20_000
    assert len(set(catalogue.queries)) == 2000
    assert len(set(catalogue.categories)) == 40
    assert 150 < len(set(catalogue.brands)) <= 200
    assert catalogue.candidates.shape == (2000, 60)
    assert all(len(set(row)) == 60 for row in catalogue.candidates.tolist())
    assert set(catalogue.exposable.sum(axis=1).tolist()) == {54}
    assert catalogue.popularity.sum() == pytest.approx(1.0)


def test_titles_leave_out_a_quarter_of_the_brands(catalogue: Catalogue) -> None:
    named = [brand in title.split() for brand, title in zip(catalogue.brands, catalogue.titles, strict=True)]
    assert np.mean(named) == pytest.approx(0.75, abs=0.01)


def test_another_seed_keeps_the_vocabulary_and_shares_no_item(catalogue: Catalogue) -> None:
    other = make_catalogue(WorldSettings(pages=1, seed=1))
    assert not set(other.item_ids) & set(catalogue.item_ids)
    words = [
        {word for title in c.titles for word in title.split() if not word[-1].isdigit()} for c in (catalogue, other)
    ]
    assert len(words[0] ^ words[1]) <= 0.05 * len(words[0])


def test_grades_of_items_are_those_of_the_definition() -> None:
    yes, no = np.array([True]), np.array([False])

    def level(asked: int, matches: int, same: np.ndarray, sibling: np.ndarray) -> int:
        return int(grade(asked, np.array([matches]), same, sibling)[0])

    assert level(3, 3, yes, no) == 4
    assert level(0, 0, yes, no) == 4
    assert level(3, 2, yes, no) == 3
    assert level(2, 1, yes, no) == 3
    assert level(3, 1, yes, no) == 2
    assert level(1, 0, yes, no) == 2
    assert level(2, 0, no, yes) == 2
    assert level(2, 2, no, no) == 1


def test_half_the_variance_of_taste_and_popularity_is_the_groups(world: World) -> None:
    groups, appeal = item_groups(world.catalogue), world.click_weights
    for values, variance in ((appeal.item_popularity, 0.25), (appeal.taste[:, 0], 0.25)):
        size = np.bincount(groups)
        within = values - (np.bincount(groups, values) / size)[groups]
        own = (within**2).sum() / (size - 1).sum()
        assert own == pytest.approx(variance / 2, rel=0.05)
        assert values.var() == pytest.approx(variance, rel=0.15)


def test_query_preferences_are_of_three_kinds(world: World) -> None:
    kind, beta = world.click_weights.kind, world.click_weights.beta
    assert np.bincount(kind) / len(kind) == pytest.approx([0.45, 0.35, 0.20], abs=0.04)
    for number, centre in enumerate((1.3, 0.7, 0.1)):
        assert beta[kind == number].mean() == pytest.approx(centre, abs=0.03)
        assert beta[kind == number].std() == pytest.approx(0.15, abs=0.02)


def test_parts_of_z_are_the_formula_written_out(world: World) -> None:
    user, query, item, level = 11, 17, 23, 4
    parts = logit_components(
        world.click_weights,
        world.users,
        user=np.array([user]),
        query=np.array([query]),
        item=np.array([item]),
        level=np.array([level], dtype=np.uint8),
        second_half=np.array([False]),
    )[0]
    taste = sum(world.users.taste[user, k] * world.click_weights.taste[item, k] for k in range(4))
    expected = [
        world.click_weights.beta[query] * 1.5,
        0.6 * world.users.strictness[user] * 1.5,
        0.6 * taste,
        world.click_weights.item_popularity[item],
    ]
    np.testing.assert_allclose(parts, expected, rtol=1e-12)


def test_drift_changes_the_kind_of_thirty_percent_of_the_queries() -> None:
    plain = make_world(WorldSettings(pages=10, seed=2, queries=1000, items=1000)).click_weights
    drifted = make_world(WorldSettings(pages=10, seed=2, queries=1000, items=1000, drift=True)).click_weights
    np.testing.assert_array_equal(plain.beta, plain.second_half_beta)
    np.testing.assert_array_equal(plain.beta, drifted.beta)
    changed = drifted.kind != drifted.second_half_kind
    assert changed.sum() == 300
    np.testing.assert_array_equal(drifted.beta[~changed], drifted.second_half_beta[~changed])
    np.testing.assert_array_equal(plain.item_popularity, drifted.item_popularity)


def test_chorus_levels_are_the_grades_and_candidates_the_graded_products() -> None:
    catalogue = make_catalogue(WorldSettings(pages=1, catalogue="chorus"))
    by_query: dict[str, list[GradedProduct]] = {}
    for pair in graded_products():
        by_query.setdefault(pair.query, []).append(pair)
    assert len(graded_products()) == 3668
    assert len(catalogue.queries) == sum(len(pairs) >= 10 for pairs in by_query.values()) == 122
    for q, query in enumerate(catalogue.queries):
        graded = {pair.doc: pair.grade + 1 for pair in by_query[query]}
        present = catalogue.candidates[q] >= 0
        items = [catalogue.item_ids[i] for i in catalogue.candidates[q][present]]
        assert dict(zip(items, catalogue.levels[q][present].tolist(), strict=True)) == graded
    assert Counter(catalogue.categories)["other"] < 0.25 * len(catalogue.categories)


def test_chorus_category_is_read_from_the_title() -> None:
    assert chorus_category('Targus TBC005EU notebook case 43.2 cm (17")') == "notebook case"
    assert chorus_category("Verbatim AA Alkaline Batteries") == "battery"
    assert chorus_category("DELL W009C Black") == "other"
