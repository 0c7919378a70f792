"""How often, and how high, items have been shown for a query, against counting them one by one."""

import msgspec
import numpy as np
import pytest
import torch

from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.exposure import EXPOSURE_FEATURES, ExposureSketch
from prectr.model.features.smoothing import PriorRates
from prectr.model.layers.gradients import StateUpdate
from prectr.stream.records import Example, decode_page, encode_record
from tests.kit.models.examples import random_examples
from tests.kit.models.exposure import expected_exposure

CPU = torch.device("cpu")


def _batch(examples: list[Example]) -> Batch:
    return FeatureEncoder().encode(examples, PriorRates(64, 20.0))


def _counted(batches: list[Batch], slots: int = 1 << 20) -> ExposureSketch:
    counts = ExposureSketch(slots, CPU)
    for batch in batches:
        counts.apply(counts.update_for(batch))
    return counts


def test_numbers_are_those_of_counting_one_by_one() -> None:
    examples = random_examples(60, seed=3)
    seen = [_batch(examples[start : start + 7]) for start in range(0, 49, 7)]
    batch_to_score = _batch(examples[49:])
    numbers = _counted(seen).features(batch_to_score)
    assert numbers.shape == (batch_to_score.impressions, EXPOSURE_FEATURES)
    np.testing.assert_allclose(numbers, expected_exposure(seen, batch_to_score), rtol=1e-5, atol=1e-6)
    assert (numbers[:, 1] > 0).any()
    assert (numbers == 0).all(axis=1).any()


def test_nothing_is_known_of_what_was_never_shown() -> None:
    batch = _batch(random_examples(5))
    assert not ExposureSketch(4096, CPU).features(batch).any()


def test_it_is_the_same_however_a_batch_is_spread_over_ranks() -> None:
    examples = random_examples(12, seed=5)
    shares = [_batch(examples[0::2]), _batch(examples[1::2])]
    one, two = _counted([_batch(examples)]), ExposureSketch(1 << 20, CPU)
    parts = [two.update_for(share) for share in shares]
    rows = torch.unique(torch.cat([part.indices for part in parts]))
    summed = torch.zeros(len(rows), 3)
    for part in parts:
        summed.index_add_(0, torch.searchsorted(rows, part.indices), part.values)
    two.apply(StateUpdate(rows, summed))
    batch_to_score = _batch(examples)
    np.testing.assert_allclose(one.features(batch_to_score), two.features(batch_to_score), rtol=1e-6)


def test_an_item_on_every_page_of_a_query_that_shows_all_of_its_items_is_as_expected() -> None:
    one = random_examples(1, seed=8)
    numbers = _counted([_batch(one) for _ in range(40)]).features(_batch(one))
    np.testing.assert_allclose(numbers[:, 0], 0.0, atol=1e-6)
    assert (numbers[:, 1] > 0).all()


def test_an_item_that_is_shown_more_often_than_others_of_its_query_stands_above_them() -> None:
    whole = next(one for one in random_examples(20, seed=8) if len(one.labels) > 2)
    page = decode_page(whole.page)
    alone = msgspec.structs.replace(page, items=page.items[:1])
    first = msgspec.structs.replace(
        whole, labels=whole.labels[:1], levels=whole.levels[:1], page=msgspec.Raw(encode_record(alone))
    )
    numbers = _counted([_batch([whole if n % 4 == 0 else first]) for n in range(40)]).features(_batch([whole]))
    assert numbers[0, 0] > 0 > numbers[1:, 0].max()
    assert np.abs(numbers[:, 0]).max() < 2 * np.log(49)


def test_a_crowded_sketch_counts_too_much_and_never_too_little() -> None:
    examples = random_examples(200, seed=6)
    seen, batch_to_score = [_batch(examples[:150])], _batch(examples[150:])
    crowded, roomy = _counted(seen, slots=256).features(batch_to_score), _counted(seen).features(batch_to_score)
    assert (crowded[:, 1] >= roomy[:, 1] - 1e-6).all()
    assert (crowded[:, 1] > roomy[:, 1] + 1e-6).any()


@pytest.mark.parametrize("batches", [0, 3])
def test_an_export_restores(batches: int) -> None:
    examples = random_examples(40, seed=7)
    counts = _counted([_batch(examples[10 * start : 10 * start + 10]) for start in range(batches)])
    again = ExposureSketch(1 << 20, CPU)
    again.load_state_dict(counts.state_dict())
    batch_to_score = _batch(examples)
    np.testing.assert_array_equal(again.features(batch_to_score), counts.features(batch_to_score))
    again.apply(again.empty_update())
    np.testing.assert_array_equal(again.features(batch_to_score), counts.features(batch_to_score))
