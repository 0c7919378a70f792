"""Bootstrap replicates: they equal a bootstrap by brute force, add up, and give honest intervals."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from prectr.model.features.hashing import hash_text
from prectr.model.quality.paired import ModelSample, differences_of, interval_of, paired_differences, sample_of
from prectr.model.quality.quality import Quality
from prectr.model.quality.resamples import REPLICATES, Resamples, poisson_weights
from prectr.model.quality.scored_pages import ScoredPages, concat
from prectr.state.errors import CheckpointError


def pages(count: int, seed: int, *, users: int = 40, sharpness: float = 1.0) -> ScoredPages:
    """Pages of 2 to 8 impressions whose logits are multiples of 1/8, as the bins are, and better if sharper."""
    world, noise = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    sizes = world.integers(2, 9, count)
    truth = world.normal(-1.0, 1.5, int(sizes.sum())).clip(-7, 3)
    labels = (world.random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(np.uint8)
    user = world.integers(0, users, count)
    return ScoredPages(
        logits=np.floor(8 * (sharpness * truth + (1 - sharpness) * noise.normal(-1.0, 1.5, len(truth)))) / 8,
        labels=labels,
        levels=np.ones(len(truth), np.uint8),
        positions=np.concatenate([np.arange(1, size + 1) for size in sizes]),
        category=np.zeros(len(truth), np.uint64),
        page_sizes=sizes,
        user_activity=np.zeros(count, np.int64),
        closes_at=np.arange(count) * 60_000,
        page_keys=np.array([hash_text(f"page {number}") for number in range(count)], np.uint64),
        user_keys=np.array([hash_text(f"user {number}") for number in user], np.uint64),
        query_keys=np.zeros(count, np.uint64),
    )


def counted(*parts: ScoredPages) -> tuple[Quality, Resamples]:
    quality, resamples = Quality(), Resamples()
    for part in parts:
        resamples.add(part, quality.add_pages(part))
    return quality, resamples


def sample(name: str, scored: ScoredPages) -> ModelSample:
    return sample_of(name, *counted(scored))


def test_replicates_equal_scikit_learn_with_the_weights_of_pages_and_users() -> None:
    scored = pages(700, 1)
    found = counted(scored)[1].replicates()
    weights = poisson_weights(scored.page_keys, scored.user_keys)
    probability = 1 / (1 + np.exp(-scored.logits))
    starts = scored.page_starts
    for column in (0, 1, 57, REPLICATES - 1, REPLICATES, 2 * REPLICATES - 1):
        by_impression = weights[:, column].repeat(scored.page_sizes)
        unit, number = ("pages", "users")[column // REPLICATES], column % REPLICATES
        got = {name: getattr(values, unit)[number] for name, values in found.items()}
        assert got["auc"] == pytest.approx(
            roc_auc_score(scored.labels, scored.logits, sample_weight=by_impression), abs=1e-12
        )
        assert got["log_loss"] == pytest.approx(
            log_loss(scored.labels, probability, sample_weight=by_impression), abs=1e-7
        )
        total, whole = 0.0, 0.0
        for page, weight in enumerate(weights[:, column].tolist()):
            own = slice(starts[page], starts[page + 1])
            if 0 < scored.labels[own].sum() < scored.page_sizes[page]:
                size = weight * scored.page_sizes[page]
                total += size * roc_auc_score(scored.labels[own], scored.logits[own])
                whole += size
        assert got["gauc"] == pytest.approx(total / whole, abs=1e-6)


def test_weights_are_poisson_and_belong_to_the_ids_alone() -> None:
    scored = pages(4_000, 2, users=4_000)
    weights = poisson_weights(scored.page_keys, scored.user_keys)
    share = np.bincount(weights.astype(int).ravel(), minlength=6)[:6] / weights.size
    assert share == pytest.approx(np.exp(-1) / np.array([1, 1, 2, 6, 24, 120]), abs=2e-3)
    assert np.abs(np.corrcoef(weights.T) - np.eye(weights.shape[1])).max() < 0.12
    assert np.array_equal(poisson_weights(scored.page_keys[7:9], scored.user_keys[7:9]), weights[7:9])
    by_user = weights[:, REPLICATES:]
    same = scored.user_keys == scored.user_keys[0]
    assert (by_user[same] == by_user[0]).all()


def test_any_order_and_any_batches_give_the_same_bytes() -> None:
    one, other = pages(900, 3), pages(600, 4)
    whole = counted(concat([one, other]))[1].state()
    assert counted(other, one)[1].state() == whole
    assert Resamples.from_state(whole).state() == whole


def test_state_of_another_size_is_refused() -> None:
    state = Resamples().state()
    with pytest.raises(CheckpointError, match="whole numbers"):
        Resamples.from_state(type(state)(REPLICATES, state.histogram[:-8], state.sums))


def test_paired_interval_is_that_of_a_bootstrap_by_drawing() -> None:
    better, worse = pages(1_500, 5), pages(1_500, 5, sharpness=0.6)
    found = {each.metric: each for each in differences_of(sample("better", better), sample("worse", worse))}
    page_of = np.arange(1_500).repeat(better.page_sizes)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        weight = np.bincount(random.integers(1_500, size=1_500), minlength=1_500)[page_of]
        drawn.append(
            roc_auc_score(better.labels, better.logits, sample_weight=weight)
            - roc_auc_score(worse.labels, worse.logits, sample_weight=weight)
        )
    got = found["auc"].by_page
    assert got is not None
    assert got.low > 0
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * np.std(drawn), rel=0.25)
    assert found["log_loss"].difference < 0


def test_users_who_are_alike_on_all_their_pages_widen_the_interval_over_users() -> None:
    scored = pages(2_000, 6, users=20)
    # Half of the users are ranked perfectly, the others the wrong way round.
    good = (scored.user_keys % np.uint64(2) == 0).repeat(scored.page_sizes)
    logits = np.where(good, scored.labels, 1 - scored.labels).astype(np.float64)
    shifted = ScoredPages(**{name: getattr(scored, name) for name in ScoredPages.__slots__} | {"logits": logits})
    found = next(each for each in differences_of(sample("a", shifted), sample("b", scored)) if each.metric == "gauc")
    assert found.by_page is not None
    assert found.by_user is not None
    assert found.by_user.high - found.by_user.low > 4 * (found.by_page.high - found.by_page.low)


def test_a_model_against_itself_differs_by_nothing_and_its_own_interval_covers_its_value() -> None:
    one = sample("a", pages(800, 7))
    for each in differences_of(one, one):
        assert (each.difference, each.by_page, each.by_user) == (0.0, type(each.by_page)(0.0, 0.0), each.by_page)
    own = interval_of(one.metrics["auc"])
    assert own is not None
    assert own.low < (one.metrics["auc"].value or 0.0) < own.high


def test_other_pages_are_not_paired_and_a_log_without_clicks_has_no_differences() -> None:
    assert paired_differences([sample("a", pages(80, 8)), sample("b", pages(81, 8))]) == []
    scored = pages(50, 9)
    quiet = ScoredPages(
        **{name: getattr(scored, name) for name in ScoredPages.__slots__} | {"labels": np.zeros_like(scored.labels)}
    )
    assert {each.metric for each in paired_differences([sample("a", quiet), sample("b", quiet)])} == {"log_loss"}
