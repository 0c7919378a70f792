"""The cache of pairs against a dictionary that forgets what it must."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.model.distributed.data_parallel import all_reduce_gradients
from prectr.model.features.hashing import U64, mix
from prectr.model.layers.gradients import Gradients, StateUpdate
from prectr.model.text.pair_cache import PairCache
from tests.kit.models.threads import run_on_ranks

CPU = torch.device("cpu")
KEYS = st.integers(0, 2**64 - 1)


def _keys(*keys: int) -> U64:
    return np.array(keys, dtype=np.uint64)


def _apart(cache: PairCache, count: int) -> U64:
    """Keys of pairs that are in nobody's way."""
    several = mix(np.arange(50 * count, dtype=np.uint64))
    slots, _ = cache.find(several)
    _, first = np.unique(slots, return_index=True)
    return several[np.sort(first)[:count]]


def _colliding(cache: PairCache, count: int) -> U64:
    """Keys of pairs that want the same slot."""
    several = mix(np.arange(50 * count * cache.size, dtype=np.uint64))
    slots, _ = cache.find(several)
    return several[slots == slots[0]][:count]


def _kept(cache: PairCache, keys: U64, values: torch.Tensor, step: int) -> None:
    cache.apply(cache.updates_for(keys, values), step)


def test_an_uncached_pair_is_not_found() -> None:
    cache = PairCache(16, 3, CPU)
    _, steps = cache.find(_keys(0, 1, 2**64 - 1, 12345))
    assert steps.tolist() == [-1] * 4


def test_a_cached_pair_is_found_with_its_step_and_values() -> None:
    cache = PairCache(64, 3, CPU)
    keys = _apart(cache, 5)
    values = torch.arange(15, dtype=torch.float32).view(5, 3) / 8
    _kept(cache, keys[:3], values[:3], 7)
    _kept(cache, keys[3:], values[3:], 9)
    order = [4, 0, 2, 1, 3]
    slots, steps = cache.find(keys[order])
    assert steps.tolist() == [9, 7, 7, 7, 9]
    assert torch.equal(cache.read(slots), values[order])
    assert cache.read(slots).dtype == torch.float32
    _, others = cache.find(keys + np.uint64(1))
    assert (others == -1).all()


@given(keys=st.sets(KEYS, min_size=1, max_size=6))
@settings(max_examples=60)
def test_every_one_of_64_bits_of_a_key_counts(keys: set[int]) -> None:
    cache = PairCache(1 << 14, 2, CPU)
    several = _keys(*sorted(keys))
    slots, _ = cache.find(several)
    if len(set(slots.tolist())) < len(slots):
        return
    _kept(cache, several, torch.zeros(len(keys), 2), 1)
    assert cache.find(several)[1].tolist() == [1] * len(keys)
    for bit in range(64):
        flipped = several ^ np.uint64(1 << bit)
        known = np.isin(flipped, several)
        assert ((cache.find(flipped)[1] == 1) == known).all()


def test_values_are_those_of_float16() -> None:
    cache = PairCache(8, 5, CPU)
    values = np.array([[0.1, -3.14159, 1e-6, 2049.0, -1000.3]], dtype=np.float32)
    _kept(cache, _keys(5), torch.from_numpy(values), 1)
    read = cache.read(cache.find(_keys(5))[0]).numpy()
    assert read.tolist() == values.astype(np.float16).astype(np.float32).tolist()
    assert read[0, :2] == pytest.approx(values[0, :2], rel=1e-3)


def test_a_new_pair_replaces_the_previous_one_in_its_slot() -> None:
    cache = PairCache(8, 2, CPU)
    first, second = _colliding(cache, 2)
    _kept(cache, _keys(first), torch.tensor([[1.0, 2.0]]), 1)
    _kept(cache, _keys(second), torch.tensor([[3.0, 4.0]]), 2)
    slots, steps = cache.find(_keys(first, second))
    assert steps.tolist() == [-1, 2]
    assert cache.read(slots[1:]).tolist() == [[3.0, 4.0]]


def test_of_pairs_of_one_batch_that_want_one_slot_one_is_kept_whole() -> None:
    cache = PairCache(8, 2, CPU)
    keys = _colliding(cache, 3)
    values = torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    _kept(cache, keys, values, 4)
    slots, steps = cache.find(keys)
    assert sorted(steps.tolist()) == [-1, -1, 4]
    survivor = int(np.flatnonzero(steps == 4)[0])
    assert cache.read(slots[[survivor]]).tolist() == [values[survivor].tolist()]


@given(batches=st.lists(st.lists(st.integers(0, 30), unique=True, max_size=6), max_size=12), slots=st.integers(1, 40))
@settings(max_examples=50)
def test_the_cache_is_a_dictionary_by_slot(batches: list[list[int]], slots: int) -> None:
    cache = PairCache(slots, 1, CPU)
    everything = mix(np.arange(31, dtype=np.uint64))
    slot_of = cache.find(everything)[0].tolist()
    held: dict[int, set[tuple[int, int]]] = {}
    for step, batch in enumerate(batches, start=1):
        keys = everything[np.array(batch, dtype=np.int64)]
        _kept(cache, keys, torch.tensor(batch, dtype=torch.float32).view(-1, 1) + step * 32, step)
        for slot in {slot_of[pair] for pair in batch}:
            held[slot] = {(pair, step) for pair in batch if slot_of[pair] == slot}
    found, steps = cache.find(everything)
    seen = {pair: int(step) for pair, step in enumerate(steps) if step >= 0}
    values = cache.read(found)[:, 0].tolist()
    assert len(seen) == len(held)
    for pair, step in seen.items():
        assert (pair, step) in held[slot_of[pair]]
        assert values[pair] == pair + step * 32


def test_nothing_to_keep_changes_nothing_and_has_the_same_columns() -> None:
    cache = PairCache(8, 2, CPU)
    _kept(cache, _keys(5), torch.tensor([[1.0, 2.0]]), 3)
    some = cache.updates_for(_keys(5), torch.zeros(1, 2))
    nothing = cache.empty_update()
    assert nothing.values.shape == (0, some.values.shape[1])
    cache.apply(nothing, 9)
    assert cache.find(_keys(5))[1].tolist() == [3]


def test_rows_are_ascending_and_each_once() -> None:
    cache = PairCache(32, 1, CPU)
    keys = mix(np.arange(200, dtype=np.uint64))
    rows = cache.updates_for(keys, torch.zeros(200, 1)).indices
    assert rows.tolist() == sorted(keys.view(np.int64).tolist())


def _over_ranks(shards: list[tuple[U64, torch.Tensor]], slots: int = 64) -> PairCache:
    """The cache of a rank whose share was kept together with the others'; all hold the same."""

    def work(ranks: object) -> PairCache:
        cache = PairCache(slots, 2, CPU)
        keys, values = shards[ranks.rank]  # type: ignore[attr-defined]
        change = cache.updates_for(keys, values) if len(keys) else cache.empty_update()
        own = Gradients(1, torch.zeros(0), {}, {"pair_cache": change})
        cache.apply(all_reduce_gradients(own, len(shards), ranks).state_updates["pair_cache"], 1)  # type: ignore[arg-type]
        return cache

    caches = run_on_ranks(len(shards), work)
    exports = [cache.state_dict() for cache in caches]
    for export in exports[1:]:
        assert all(torch.equal(export[name], exports[0][name]) for name in export)
    return caches[0]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_where_ranks_have_read_one_pair_the_mean_is_kept(size: int) -> None:
    keys = _keys(2**64 - 1, 0xFEDC_BA98_7654_3211)
    shares = [(keys, torch.tensor([[1.0 * rank, 0.5], [2.0, -4.0 * rank]])) for rank in range(size)]
    cache = _over_ranks(shares)
    slots, steps = cache.find(keys)
    assert steps.tolist() == [1, 1]
    mean = (size - 1) / 2
    assert cache.read(slots).tolist() == [[mean, 0.5], [2.0, -4.0 * mean]]


def test_each_rank_comes_to_hold_what_the_others_have_read() -> None:
    keys = _apart(PairCache(64, 2, CPU), 5)
    values = torch.arange(10, dtype=torch.float32).view(5, 2)
    cache = _over_ranks([(keys[:2], values[:2]), (keys[:0], values[:0]), (keys[2:], values[2:])])
    slots, steps = cache.find(keys)
    assert steps.tolist() == [1] * 5
    assert torch.equal(cache.read(slots), values)


def test_two_pairs_of_two_ranks_in_one_slot_are_never_taken_for_each_other() -> None:
    keys = _colliding(PairCache(8, 2, CPU), 12)
    for first, second in zip(keys[:6], keys[6:], strict=True):
        shares = [(_keys(first), torch.tensor([[1.0, 2.0]])), (_keys(second), torch.tensor([[30.0, 40.0]]))]
        cache = _over_ranks(shares, slots=8)
        slots, steps = cache.find(_keys(first, second))
        found = [cache.read(slots[[place]]).tolist()[0] for place in range(2) if steps[place] >= 0]
        own = [[[1.0, 2.0], [30.0, 40.0]][place] for place in range(2) if steps[place] >= 0]
        assert found == own


def test_an_export_restores_bit_for_bit() -> None:
    cache = PairCache(32, 3, CPU)
    keys = mix(np.arange(40, dtype=np.uint64))
    values = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    _kept(cache, keys[:15], values[:15], 2)
    _kept(cache, keys[15:], values[15:], 5)
    exported = cache.state_dict()
    used = len(np.unique(cache.find(keys)[0]))
    assert all(len(tensor) == used for tensor in exported.values())
    restored = PairCache(32, 3, CPU)
    restored.load_state_dict({name: tensor.clone() for name, tensor in exported.items()})
    slots, steps = cache.find(keys)
    again, same = restored.find(keys)
    assert np.array_equal(steps, same)
    assert torch.equal(cache.read(slots), restored.read(again))
    _kept(cache, keys[:4], values[4:8], 8)
    _kept(restored, keys[:4], values[4:8], 8)
    assert all(torch.equal(tensor, restored.state_dict()[name]) for name, tensor in cache.state_dict().items())


def test_an_empty_cache_can_be_exported_and_restored() -> None:
    restored = PairCache(8, 2, CPU)
    restored.load_state_dict(PairCache(8, 2, CPU).state_dict())
    assert restored.find(_keys(0, 1))[1].tolist() == [-1, -1]


def test_the_change_is_what_the_change_of_any_table_is() -> None:
    change = PairCache(8, 2, CPU).updates_for(_keys(1), torch.zeros(1, 2))
    assert isinstance(change, StateUpdate)
    assert (change.indices.dtype, change.values.dtype) == (torch.int64, torch.float32)
