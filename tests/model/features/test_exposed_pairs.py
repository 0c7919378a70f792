"""What has been shown is known, and little else passes for it."""

import dataclasses

import numpy as np
import pytest
import torch

from prectr.model.distributed.data_parallel import add_up
from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.exposed_pairs import ShownPairs
from prectr.model.features.hashing import mix
from prectr.model.features.smoothing import Parents
from prectr.model.layers.gradients import Gradients
from tests.kit.models.examples import random_examples
from tests.kit.models.threads import in_threads

CPU = torch.device("cpu")


def _batch(seed: int) -> Batch:
    return FeatureEncoder().encode(random_examples(6, seed=seed), Parents(64, 20.0))


def _pairs(batch: Batch) -> list[tuple[str, str]]:
    return [(batch.examples[page].query, item) for page, item in zip(batch.page_of, batch.item_ids, strict=True)]


def test_exactly_what_was_shown_for_the_query_is_known() -> None:
    shown = ShownPairs(1 << 20, CPU)
    first, second = _batch(0), _batch(1)
    assert not shown.has(first).any()
    shown.add(shown.to_add(first))
    assert shown.has(first).all()
    known = set(_pairs(first))
    expected = [pair in known for pair in _pairs(second)]
    assert shown.has(second).tolist() == expected
    assert not all(expected)


def test_an_item_shown_for_one_query_has_not_been_shown_for_another() -> None:
    shown = ShownPairs(1 << 20, CPU)
    batch = _batch(0)
    shown.add(shown.to_add(batch))
    assert not shown.has(dataclasses.replace(batch, query=mix(batch.query))).any()


def test_what_is_to_be_added_changes_nothing_by_itself() -> None:
    shown = ShownPairs(1 << 12, CPU)
    batch = _batch(0)
    shown.to_add(batch)
    assert not shown.has(batch).any()


def test_others_pass_for_shown_as_often_as_bits_are_set() -> None:
    """1,500 pairs in 4,096 bits: 1 − (1 − 1/4096)^1500 of the bits, 30.7 %, and so of other pairs."""
    shown = ShownPairs(4096, CPU)
    batch = _batch(0)
    many = dataclasses.replace(batch, item=mix(np.arange(1500, dtype=np.uint64)), page_of=np.zeros(1500, np.int64))
    others = dataclasses.replace(
        many, item=mix(np.arange(10_000, 18_000, dtype=np.uint64)), page_of=np.zeros(8000, int)
    )
    shown.add(shown.to_add(many))
    assert shown.has(many).all()
    expected = 1 - (1 - 1 / 4096) ** 1500
    assert shown.has(others).float().mean().item() == pytest.approx(expected, abs=0.03)


def test_all_ranks_know_what_any_has_shown() -> None:
    batches = [_batch(0), _batch(1), _batch(2)]

    def work(ranks: object) -> ShownPairs:
        shown = ShownPairs(4096, CPU)
        change = shown.nothing() if ranks.rank == 2 else shown.to_add(batches[ranks.rank])  # type: ignore[attr-defined]
        own = Gradients(1, torch.zeros(0), {"shown": change})
        shown.add(add_up(own, 3, ranks).tables["shown"])  # type: ignore[arg-type]
        return shown

    alone = ShownPairs(4096, CPU)
    for batch in batches[:2]:
        alone.add(alone.to_add(batch))
    for shown in in_threads(3, work):
        assert torch.equal(shown.export()["bits"], alone.export()["bits"])


@pytest.mark.parametrize("slots", [4096, 4099, 9])
def test_what_was_exported_is_taken_up(slots: int) -> None:
    shown = ShownPairs(slots, CPU)
    shown.add(shown.to_add(_batch(0)))
    restored = ShownPairs(slots, CPU)
    restored.restore({name: tensor.clone() for name, tensor in shown.export().items()})
    for seed in range(4):
        assert torch.equal(restored.has(_batch(seed)), shown.has(_batch(seed)))
    restored.add(restored.to_add(_batch(5)))
    assert restored.has(_batch(5)).all()


@pytest.mark.parametrize("slots", [2048, 8192])
def test_bits_of_another_number_of_pairs_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match=f"4096 pairs, not {slots}"):
        ShownPairs(slots, CPU).restore(ShownPairs(4096, CPU).export())
