"""Keys that sort like the values they encode, msgpack arrays, counts and decayed sums."""

import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prectr.state.aggregates import (
    NO_COUNTS,
    LevelCounts,
    LevelSums,
    add_counts,
    count_levels,
    decay,
    decay_and_add,
)
from prectr.state.encoding import append_bounded, encode_array, encode_order_key

_times = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 3)
_ids = st.text(alphabet=st.sampled_from("\0\x01\xff\uffffa😀"), max_size=4) | st.text(max_size=3)
_places = st.tuples(_times, _ids, _ids)


def as_bytes(place: tuple[int, str, str]) -> tuple[int, bytes, bytes]:
    return place[0], place[1].encode(), place[2].encode()


@given(_places, _places)
@example((0, "a", "b"), (0, "a\0", "b"))
@example((0, "a\0", "b"), (0, "a\0\0", ""))
@example((0, "a", "\0b"), (0, "a\0", "b"))
@example((0, "", "\0"), (0, "\0", ""))
@example((-1, "a", "b"), (0, "a", "b"))
@example((0, "\0\xff", ""), (0, "\0", "\xff"))
@example((5, "r", "u"), (5, "r", "u"))
def test_order_key_sorts_as_time_then_bytes_of_the_ids(a: tuple[int, str, str], b: tuple[int, str, str]) -> None:
    assert (encode_order_key(*a) < encode_order_key(*b)) == (as_bytes(a) < as_bytes(b))
    assert (encode_order_key(*a) == encode_order_key(*b)) == (a == b)


@given(st.lists(_places, max_size=12))
def test_many_order_keys_sort_as_what_they_stand_for(places: list[tuple[int, str, str]]) -> None:
    assert sorted(places, key=lambda place: encode_order_key(*place)) == sorted(places, key=as_bytes)


def test_no_order_key_is_the_beginning_of_another() -> None:
    ids = ["", "\0", "a", "a\0", "a\0\0", "\0a", "aa", "\xff"]
    keys = [encode_order_key(0, request_id, user_id) for request_id in ids for user_id in ids]
    assert not [(a, b) for a in keys for b in keys if a is not b and b.startswith(a)]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 65535, 65536])
def test_encode_array_is_what_msgpack_makes_of_the_list(count: int) -> None:
    values = [number % 300 for number in range(count)]
    entries = [msgspec.msgpack.encode(value) for value in values]
    assert encode_array(entries) == msgspec.msgpack.encode(values)


@given(st.lists(st.lists(st.binary(max_size=3), max_size=6), max_size=6), st.integers(1, 5))
def test_a_ring_holds_the_last_entries(appended: list[list[bytes]], size: int) -> None:
    ring: list[bytes] = []
    for entries in appended:
        append_bounded(ring, entries, size)
    assert ring == [entry for entries in appended for entry in entries][-size:]


_items = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1)), max_size=30)


@given(_items)
def test_count_levels_is_a_count_item_by_item(items: list[tuple[int, int]]) -> None:
    levels, labels = bytes(level for level, _ in items), bytes(label for _, label in items)
    shown = [sum(1 for level, _ in items if level == wanted) for wanted in (1, 2, 3, 4)]
    clicked = [sum(1 for level, label in items if level == wanted and label) for wanted in (1, 2, 3, 4)]
    assert count_levels(levels, labels) == (*shown, *clicked)


def test_counts_of_unequal_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="2 levels, but 1 labels"):
        count_levels(bytes((1, 2)), bytes((1,)))


_counts = st.tuples(*[st.integers(0, 1 << 40)] * 8)


@given(_counts, _counts)
def test_counts_add_level_by_level(a: LevelCounts, b: LevelCounts) -> None:
    assert add_counts(a, b) == tuple(x + y for x, y in zip(a, b, strict=True))
    assert add_counts(a, NO_COUNTS) == a


def test_sums_halve_with_every_half_life() -> None:
    sums: LevelSums = (8.0, 4.0, 2.0, 1.0, 0.0, 16.0, 1.5, 3.0)
    day = 86_400_000
    two_days, one_day = decay((sums, sums), 1000, 1000 + 2 * day, (2 * day, day))
    assert two_days == (4.0, 2.0, 1.0, 0.5, 0.0, 8.0, 0.75, 1.5)
    assert one_day == (2.0, 1.0, 0.5, 0.25, 0.0, 4.0, 0.375, 0.75)
    added = decay_and_add((sums, sums), 1000, 1000 + 2 * day, (2 * day, day), (1, 0, 0, 2, 0, 0, 0, 1))
    assert added == ((5.0, 2.0, 1.0, 2.5, 0.0, 8.0, 0.75, 2.5), (3.0, 1.0, 0.5, 2.25, 0.0, 4.0, 0.375, 1.75))


@given(
    st.integers(0, 1 << 45),
    st.integers(0, 1 << 45),
    st.lists(st.floats(1.0, 1e12), min_size=1, max_size=8),
    st.tuples(*[st.integers(0, 200)] * 8),
)
def test_sums_decay_as_two_to_minus_the_time_over_the_half_life(
    since: int, at: int, half_lives: list[float], counts: LevelCounts
) -> None:
    sums: LevelSums = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    found = decay((sums,) * len(half_lives), since, at, half_lives)
    added = decay_and_add((sums,) * len(half_lives), since, at, half_lives, counts)
    assert len(found) == len(added) == len(half_lives)
    for half_life, one, other in zip(half_lives, found, added, strict=True):
        factor = math.exp2(-max(0, at - since) / half_life)
        assert one == pytest.approx([value * factor for value in sums], rel=1e-12)
        assert other == pytest.approx([value * factor + count for value, count in zip(sums, counts, strict=True)])


def test_an_earlier_time_leaves_the_sums_as_they_are() -> None:
    sums: LevelSums = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    assert decay((sums,), 1000, 999, (1.0,)) == (sums,)
    assert decay((sums,), 1000, 1000, (1.0,)) == (sums,)
    added = decay_and_add((sums,), 1000, 999, (1.0,), (1, 0, 0, 0, 0, 0, 0, 2))
    assert added == ((2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0),)
