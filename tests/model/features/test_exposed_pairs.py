"""What has been shown is known, and little else passes for it."""

import dataclasses

import numpy as np
import pytest
import torch

from prectr.model.distributed.data_parallel import all_reduce_gradients
from prectr.model.features.batch import Batch, FeatureEncoder
from prectr.model.features.exposed_pairs import ExposedPairs
from prectr.model.features.hashing import mix
from prectr.model.features.smoothing import PriorRates
from prectr.model.layers.gradients import Gradients
from tests.kit.models.examples import random_examples
from tests.kit.models.threads import run_on_ranks

CPU = torch.device("cpu")


def _batch(seed: int) -> Batch:
    return FeatureEncoder().encode(random_examples(6, seed=seed), PriorRates(64, 20.0))


def _pairs(batch: Batch) -> list[tuple[str, str]]:
    return [(batch.examples[page].query, item) for page, item in zip(batch.page_of, batch.item_ids, strict=True)]


def test_exactly_what_was_shown_for_the_query_is_known() -> None:
    shown = ExposedPairs(1 << 20, CPU)
    first, second = _batch(0), _batch(1)
    assert not shown.contains(first).any()
    shown.apply(shown.update_for(first))
    assert shown.contains(first).all()
    known = set(_pairs(first))
    expected = [pair in known for pair in _pairs(second)]
    assert shown.contains(second).tolist() == expected
    assert not all(expected)


def test_an_item_shown_for_one_query_has_not_been_shown_for_another() -> None:
    shown = ExposedPairs(1 << 20, CPU)
    batch = _batch(0)
    shown.apply(shown.update_for(batch))
    assert not shown.contains(dataclasses.replace(batch, query=mix(batch.query))).any()


def test_what_is_to_be_added_changes_nothing_by_itself() -> None:
    shown = ExposedPairs(1 << 12, CPU)
    batch = _batch(0)
    shown.update_for(batch)
    assert not shown.contains(batch).any()


def test_others_pass_for_shown_as_often_as_bits_are_set() -> None:
    """1,500 pairs in 4,096 bits: 1 − (1 − 1/4096)^1500 of the bits, 30.7 %, and so of other pairs."""
    shown = ExposedPairs(4096, CPU)
    batch = _batch(0)
    many = dataclasses.replace(batch, item=mix(np.arange(1500, dtype=np.uint64)), page_of=np.zeros(1500, np.int64))
    others = dataclasses.replace(
        many, item=mix(np.arange(10_000, 18_000, dtype=np.uint64)), page_of=np.zeros(8000, int)
    )
    shown.apply(shown.update_for(many))
    assert shown.contains(many).all()
    expected = 1 - (1 - 1 / 4096) ** 1500
    assert shown.contains(others).float().mean().item() == pytest.approx(expected, abs=0.03)


def test_all_ranks_know_what_any_has_shown() -> None:
    batches = [_batch(0), _batch(1), _batch(2)]

    def work(ranks: object) -> ExposedPairs:
        shown = ExposedPairs(4096, CPU)
        change = shown.empty_update() if ranks.rank == 2 else shown.update_for(batches[ranks.rank])  # type: ignore[attr-defined]
        own = Gradients(1, torch.zeros(0), {}, {"exposed_pairs": change})
        shown.apply(all_reduce_gradients(own, 3, ranks).state_updates["exposed_pairs"])  # type: ignore[arg-type]
        return shown

    alone = ExposedPairs(4096, CPU)
    for batch in batches[:2]:
        alone.apply(alone.update_for(batch))
    for shown in run_on_ranks(3, work):
        assert torch.equal(shown.state_dict()["bits"], alone.state_dict()["bits"])


@pytest.mark.parametrize("slots", [4096, 4099, 9])
def test_an_export_restores(slots: int) -> None:
    shown = ExposedPairs(slots, CPU)
    shown.apply(shown.update_for(_batch(0)))
    restored = ExposedPairs(slots, CPU)
    restored.load_state_dict({name: tensor.clone() for name, tensor in shown.state_dict().items()})
    for seed in range(4):
        assert torch.equal(restored.contains(_batch(seed)), shown.contains(_batch(seed)))
    restored.apply(restored.update_for(_batch(5)))
    assert restored.contains(_batch(5)).all()


@pytest.mark.parametrize("slots", [2048, 8192])
def test_bits_of_another_number_of_pairs_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match=f"4096 pairs, not {slots}"):
        ExposedPairs(slots, CPU).load_state_dict(ExposedPairs(4096, CPU).state_dict())
