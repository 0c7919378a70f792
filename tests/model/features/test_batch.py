import math
from typing import Any

import msgspec
import numpy as np
import pytest

from prectr.model.features.batch import NO_PRICE, FeatureEncoder, FeatureNeeds, price_band
from prectr.model.features.hashing import hash_text
from prectr.model.features.smoothing import PriorRates
from prectr.state.errors import TrainingError
from prectr.stream.records import decode_history, decode_page
from tests.kit.models.examples import random_examples


def test_every_array_of_a_batch_is_what_a_plain_loop_over_its_pages_gives() -> None:
    examples = random_examples(7, seed=1)
    batch = FeatureEncoder().encode(examples, PriorRates(64, 20.0))
    pages = [decode_page(example.page) for example in examples]
    items = [(number, item) for number, page in enumerate(pages) for item in page.items]
    assert batch.pages == 7
    assert batch.impressions == len(items)
    assert batch.page_of.tolist() == [number for number, _ in items]
    assert np.diff(batch.page_starts).tolist() == [len(page.items) for page in pages]
    assert batch.item_ids == tuple(item.item_id for _, item in items)
    assert batch.item.tolist() == [hash_text(item.item_id) for _, item in items]
    assert batch.category.tolist() == [hash_text(item.category) for _, item in items]
    assert batch.brand.tolist() == [hash_text(item.brand) for _, item in items]
    assert batch.levels.tolist() == [item.relevance for _, item in items]
    assert batch.positions.tolist() == [item.position for _, item in items]
    assert batch.labels.tolist() == [label for example in examples for label in example.labels]
    assert batch.user.tolist() == [hash_text(page.user_id) for page in pages]
    assert batch.user_activity.tolist() == [example.user_activity for example in examples]
    clicks = [(number, click) for number, example in enumerate(examples) for click in decode_history(example.history)]
    assert batch.history.page_of.tolist() == [number for number, _ in clicks]
    assert batch.history.item.tolist() == [hash_text(click.item_id) for _, click in clicks]
    assert batch.history.level.tolist() == [click.level for _, click in clicks]
    assert batch.history.age_days.tolist() == [
        (examples[number].ts - click.ts) / 86_400_000 for number, click in clicks
    ]


def test_items_of_one_category_brand_and_price_band_are_one_group() -> None:
    batch = FeatureEncoder().encode(random_examples(60, seed=2), PriorRates(64, 20.0))
    by_group: dict[int, set[tuple[int, int, int]]] = {}
    by_parts: dict[tuple[int, int, int], set[int]] = {}
    for group, *parts in zip(
        batch.group.tolist(), batch.category.tolist(), batch.brand.tolist(), batch.price_band.tolist(), strict=True
    ):
        key = (parts[0], parts[1], parts[2])
        by_group.setdefault(group, set()).add(key)
        by_parts.setdefault(key, set()).add(group)
    assert len(by_group) > 5
    assert all(len(keys) == 1 for keys in by_group.values())
    assert all(len(groups) == 1 for groups in by_parts.values())


@pytest.mark.parametrize("price", [None, 0.0, -3.0, math.nan, math.inf, -math.inf])
def test_a_price_that_means_nothing_has_no_band(price: float | None) -> None:
    assert price_band(price) == NO_PRICE


def test_a_price_band_ends_where_the_price_has_doubled() -> None:
    assert price_band(4.0) == price_band(7.99) == price_band(8.0) - 1
    assert 1 <= price_band(1e-300) < price_band(1e300) <= 63


def test_an_encoder_with_a_full_memory_gives_the_same_batch() -> None:
    examples = random_examples(20, seed=3)
    parents = PriorRates(64, 20.0)
    assert np.array_equal(
        FeatureEncoder(capacity=2).encode(examples, parents).group, FeatureEncoder().encode(examples, parents).group
    )


def test_a_batch_at_position_1_differs_in_nothing_but_position() -> None:
    batch = FeatureEncoder().encode(random_examples(3), PriorRates(64, 20.0))
    ranked = batch.at_position(1)
    assert ranked.positions.tolist() == [1] * batch.impressions
    assert ranked.item is batch.item
    assert batch.positions.max() > 1


@pytest.mark.parametrize(
    "forged",
    [
        {"history": msgspec.Raw(msgspec.msgpack.encode(["x"])), "user_activity": 1},
        {"query_clicks": msgspec.Raw(msgspec.msgpack.encode([[1_700_000_000_000, "i1", 0, None, None, None]]))},
        {"query_clicks": msgspec.Raw(msgspec.msgpack.encode([[1_700_000_000_000, "i1", 1, None, None, math.inf]]))},
        {"query_clicks": msgspec.Raw(b"\x91" * 100_000 + b"\x90")},
    ],
    ids=["a history of texts", "a click at level 0", "an infinite price", "nested"],
)
def test_clicks_that_no_task_writes_are_named_with_their_page(forged: dict[str, Any]) -> None:
    (example,) = random_examples(1, seed=4)
    examples = [msgspec.structs.replace(example, **forged)]
    with pytest.raises(TrainingError, match=f"the example of page '{example.request_id}' holds clicks that no task"):
        FeatureEncoder().encode(examples, PriorRates(64, 20.0), FeatureNeeds(history=True, query_history=True))
