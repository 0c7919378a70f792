import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prectr.model.features.hashing import (
    MISSING,
    HashCache,
    concatenated_row_indices,
    cross,
    hash_text,
    mix,
    row_indices,
    row_indices_by_field,
    uniform,
)


@given(st.text(max_size=30))
def test_a_hash_is_blake2b_of_the_text_and_nothing_else(text: str) -> None:
    expected = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    assert hash_text(text) == expected


def test_a_missing_value_is_not_the_empty_text() -> None:
    assert hash_text(None) == MISSING != hash_text("")


def test_the_cache_never_holds_more_than_its_capacity_and_changes_no_hash() -> None:
    cache = HashCache(capacity=3)
    texts = [f"id {number % 7}" for number in range(50)]
    assert [cache(text) for text in texts] == [hash_text(text) for text in texts]
    assert len(cache._hashes) <= 3


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    # The first outputs of SplitMix64 from state 0, as its authors publish them.
    states = np.array([0, 0x9E3779B97F4A7C15], dtype=np.uint64)
    assert [hex(value) for value in mix(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(1, 5000))
def test_rows_are_within_the_table(hashes: list[int], size: int) -> None:
    picked = row_indices(np.array(hashes, dtype=np.uint64), "user", size)
    assert picked.dtype == np.int64
    assert ((picked >= 0) & (picked < size)).all()


def test_equal_ids_of_two_fields_share_a_row_no_more_often_than_chance() -> None:
    hashes = np.arange(20_000, dtype=np.uint64)
    assert (row_indices(hashes, "user", 1000) == row_indices(hashes, "item", 1000)).mean() < 0.003


def test_rows_are_spread_evenly() -> None:
    counts = np.bincount(row_indices(np.arange(64_000, dtype=np.uint64), "item", 64), minlength=64)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_cross_depends_on_the_order_of_its_parts() -> None:
    left, right = np.array([3], dtype=np.uint64), np.array([4], dtype=np.uint64)
    assert cross(left, right) != cross(right, left)


def test_initial_values_depend_on_index_and_seed_alone() -> None:
    whole = uniform(np.arange(1000), 8, seed=3)
    assert np.array_equal(uniform(np.array([700, 2]), 8, seed=3), whole[[700, 2]])
    assert not np.array_equal(uniform(np.arange(1000), 8, seed=4), whole)
    assert whole.min() >= -1
    assert whole.max() < 1
    assert abs(whole.mean()) < 0.02
    assert abs(whole.var() - 1 / 3) < 0.01


def test_rows_of_several_fields_are_those_of_each_field() -> None:
    item, user = np.arange(5, dtype=np.uint64), np.arange(3, dtype=np.uint64)
    fields = [("item", item), ("user", user), ("brand", user[:0]), ("item", user)]
    expected = [row_indices(hashes, field, 1 << 20) for field, hashes in fields]
    for rows, alone in zip(row_indices_by_field(fields, 1 << 20), expected, strict=True):
        np.testing.assert_array_equal(rows, alone)
    np.testing.assert_array_equal(concatenated_row_indices(fields, 1 << 20), np.concatenate(expected))
