"""How often, and how high, items have been shown for a query, against counting them one by one."""

import msgspec
import numpy as np
import pytest
import torch

from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.exposure import EXPOSURE_NUMBERS, ExposureCounts
from prectr.model.features.smoothing import Parents
from prectr.model.layers.gradients import RowGradients
from prectr.stream.records import Example, decode_page, encode_record
from tests.kit.models.examples import random_examples
from tests.kit.models.exposure import exposure_by_hand

CPU = torch.device("cpu")


def _batch(examples: list[Example]) -> Batch:
    return FeatureEncoder().encode(examples, Parents(64, 20.0))


def _counted(batches: list[Batch], slots: int = 1 << 20) -> ExposureCounts:
    counts = ExposureCounts(slots, CPU)
    for batch in batches:
        counts.add(counts.to_add(batch))
    return counts


def test_numbers_are_those_of_counting_one_by_one() -> None:
    examples = random_examples(60, seed=3)
    seen = [_batch(examples[start : start + 7]) for start in range(0, 49, 7)]
    asked = _batch(examples[49:])
    numbers = _counted(seen).numbers(asked)
    assert numbers.shape == (asked.impressions, EXPOSURE_NUMBERS)
    np.testing.assert_allclose(numbers, exposure_by_hand(seen, asked), rtol=1e-5, atol=1e-6)
    assert (numbers[:, 1] > 0).any()
    assert (numbers == 0).all(axis=1).any()


def test_nothing_is_known_of_what_was_never_shown() -> None:
    batch = _batch(random_examples(5))
    assert not ExposureCounts(4096, CPU).numbers(batch).any()


def test_it_is_the_same_however_a_batch_is_spread_over_ranks() -> None:
    examples = random_examples(12, seed=5)
    shares = [_batch(examples[0::2]), _batch(examples[1::2])]
    one, two = _counted([_batch(examples)]), ExposureCounts(1 << 20, CPU)
    parts = [two.to_add(share) for share in shares]
    rows = torch.unique(torch.cat([part.rows for part in parts]))
    summed = torch.zeros(len(rows), 3)
    for part in parts:
        summed.index_add_(0, torch.searchsorted(rows, part.rows), part.gradient)
    two.add(RowGradients(rows, summed))
    asked = _batch(examples)
    np.testing.assert_allclose(one.numbers(asked), two.numbers(asked), rtol=1e-6)


def test_an_item_on_every_page_of_a_query_that_shows_all_of_its_items_is_as_expected() -> None:
    one = random_examples(1, seed=8)
    numbers = _counted([_batch(one) for _ in range(40)]).numbers(_batch(one))
    np.testing.assert_allclose(numbers[:, 0], 0.0, atol=1e-6)
    assert (numbers[:, 1] > 0).all()


def test_an_item_that_is_shown_more_often_than_others_of_its_query_stands_above_them() -> None:
    whole = next(one for one in random_examples(20, seed=8) if len(one.labels) > 2)
    page = decode_page(whole.page)
    alone = msgspec.structs.replace(page, items=page.items[:1])
    first = msgspec.structs.replace(
        whole, labels=whole.labels[:1], levels=whole.levels[:1], page=msgspec.Raw(encode_record(alone))
    )
    numbers = _counted([_batch([whole if n % 4 == 0 else first]) for n in range(40)]).numbers(_batch([whole]))
    assert numbers[0, 0] > 0 > numbers[1:, 0].max()
    assert np.abs(numbers[:, 0]).max() < 2 * np.log(49)


def test_a_crowded_sketch_counts_too_much_and_never_too_little() -> None:
    examples = random_examples(200, seed=6)
    seen, asked = [_batch(examples[:150])], _batch(examples[150:])
    crowded, roomy = _counted(seen, slots=256).numbers(asked), _counted(seen).numbers(asked)
    assert (crowded[:, 1] >= roomy[:, 1] - 1e-6).all()
    assert (crowded[:, 1] > roomy[:, 1] + 1e-6).any()


@pytest.mark.parametrize("batches", [0, 3])
def test_what_is_exported_is_taken_up(batches: int) -> None:
    examples = random_examples(40, seed=7)
    counts = _counted([_batch(examples[10 * start : 10 * start + 10]) for start in range(batches)])
    again = ExposureCounts(1 << 20, CPU)
    again.restore(counts.export())
    asked = _batch(examples)
    np.testing.assert_array_equal(again.numbers(asked), counts.numbers(asked))
    again.add(again.nothing())
    np.testing.assert_array_equal(again.numbers(asked), counts.numbers(asked))
