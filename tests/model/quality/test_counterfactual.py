"""The offline estimate recovers the truth of planted worlds, and refuses where a log cannot tell it."""

import dataclasses

import numpy as np
import pytest

from prectr.model.features.hashing import hash_text, mix
from prectr.model.quality.counterfactual.propensities import PositionPairs, PositionPairsState
from prectr.model.quality.counterfactual.reranking import Reranking
from prectr.model.quality.scored_pages import ScoredPages

PLACES = 6
THETA = 1 / np.arange(1, PLACES + 1) ** 0.8
ITEMS = 12


class World:
    """A position-based world of 40 queries with 12 items each, of which a page shows six.

    disorder: spread of what the logging ranker adds to its scores; 0: a query's page is always the same.
    """

    def __init__(self, disorder: float, pages: int = 20_000, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        attraction = random.beta(1.0, 4.0, (40, ITEMS))
        logging = attraction + random.normal(0, 0.2, attraction.shape)
        query = random.integers(0, 40, pages)
        ranked = logging[query] + disorder * random.normal(size=(pages, ITEMS))
        items = np.argsort(-ranked, axis=1)[:, :PLACES]
        shown = attraction[query[:, None], items]
        clicked = random.random(shown.shape) < THETA * shown
        self.pairs = mix((query[:, None] * ITEMS + items).astype(np.uint64)).ravel()
        self.positions = np.tile(np.arange(1, PLACES + 1), pages)
        self.labels = clicked.ravel().astype(np.uint8)
        # The target ranks by what attracts.
        best_first = -np.sort(-shown, axis=1)
        self.gain = float((best_first @ THETA).mean() - (shown @ THETA).mean())
        self.pages = ScoredPages(
            logits=shown.ravel(),
            labels=self.labels,
            levels=np.ones(len(self.labels), np.uint8),
            positions=self.positions,
            category=np.zeros(len(self.labels), np.uint64),
            page_sizes=np.full(pages, PLACES),
            user_activity=np.zeros(pages, np.int64),
            closes_at=np.arange(pages),
            page_keys=mix(np.arange(pages).astype(np.uint64)),
            user_keys=np.array([hash_text(f"u{page % 500}") for page in range(pages)], np.uint64),
            query_keys=query.astype(np.uint64),
        )

    def counted(self) -> PositionPairs:
        return PositionPairs.of(self.pairs, self.positions, self.labels)

    def reranking(self) -> Reranking:
        found = Reranking()
        found.add(self.pages)
        return found


def test_propensities_of_a_log_with_some_disorder_are_those_planted() -> None:
    theta = World(0.2, pages=60_000).counted().propensities().theta
    assert theta[:PLACES] == pytest.approx(THETA, abs=0.03)
    assert np.isnan(theta[PLACES:]).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_clicks_of_another_order_are_within_the_interval(seed: int) -> None:
    world = World(0.2, seed=seed)
    found = world.reranking().estimate(world.counted().propensities())
    assert found.refused is None
    assert found.interval is not None
    assert found.gain is not None
    assert found.logged == pytest.approx(world.labels.sum() / 20_000)
    assert found.interval.low < world.gain < found.interval.high
    assert found.interval.low > 0
    assert found.interval.high - found.interval.low < world.gain
    assert found.effective_clicks is not None
    assert 100 < found.effective_clicks < world.labels.sum()


def test_a_log_whose_positions_never_varied_is_refused() -> None:
    world = World(0.0)
    found = world.reranking().estimate(world.counted().propensities())
    assert found.refused is not None
    assert "does not tell what a position is worth" in found.refused
    assert found.gain is None


def test_too_few_clicks_are_refused() -> None:
    few, many = World(0.2, pages=150), World(0.2)
    found = few.reranking().estimate(many.counted().propensities())
    assert found.refused is not None
    assert "of equal weight" in found.refused


def test_positions_that_no_pair_connects_are_refused() -> None:
    world = World(0.2)
    # Items at the lower three places are others than those at the upper three: nothing links the two.
    apart = np.where(world.positions > 3, world.pairs, ~world.pairs)
    found = world.reranking().estimate(PositionPairs.of(apart, world.positions, world.labels).propensities())
    assert found.refused is not None
    assert "positions whose worth" in found.refused


def test_the_order_shown_gains_nothing_exactly() -> None:
    world = World(0.2)
    same = Reranking()
    same.add(dataclasses.replace(world.pages, logits=-1.0 * world.positions))
    assert same.estimate(world.counted().propensities()).gain == 0.0


def test_counts_resume_and_do_not_depend_on_batches() -> None:
    world = World(0.2, pages=2_000)
    whole = world.counted()
    half = len(world.pairs) // 2
    first = PositionPairs.of(world.pairs[half:], world.positions[half:], world.labels[half:])
    resumed = PositionPairs(first.state())
    resumed.add(world.pairs[:half], world.positions[:half], world.labels[:half])
    assert resumed.state() == whole.state()
    counted = world.reranking()
    assert Reranking(counted.state()).state() == counted.state()


def test_more_pairs_than_fit_are_sampled_whole() -> None:
    random = np.random.default_rng(0)
    pairs = mix(random.integers(0, 200_000, 900_000).astype(np.uint64))
    positions = random.integers(1, 21, len(pairs))
    labels = (random.random(len(pairs)) < 0.1).astype(np.uint8)
    found = PositionPairs()
    for start in range(0, len(pairs), 100_000):
        part = slice(start, start + 100_000)
        found.add(pairs[part], positions[part], labels[part])
    state: PositionPairsState = found.state()
    kept = pairs <= np.uint64(state.limit)
    assert 0 < state.limit < (1 << 64) - 1
    assert np.frombuffer(state.cells[2], "<i8").sum() == kept.sum()
    assert np.frombuffer(state.cells[3], "<i8").sum() == labels[kept].sum()
