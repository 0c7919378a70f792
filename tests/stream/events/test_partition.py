"""Partitioning: the partition of a key is the one that Kafka's clients choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2

import prectr.stream.events.partition
from prectr.stream.events.partition import murmur2, partitions_of


@given(st.lists(st.binary(max_size=70)))
def test_murmur2_of_any_bytes_is_kafkas(keys: list[bytes]) -> None:
    assert murmur2(keys) == [kafka_murmur2(key) & 0x7FFFFFFF for key in keys]


@pytest.mark.parametrize(
    ("key", "expected"),
    # From Apache Kafka's own test, UtilsTest.testMurmur2.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_has_the_values_of_kafkas_own_test(key: bytes, expected: int) -> None:
    assert murmur2([key]) == [expected & 0x7FFFFFFF]


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)), st.integers(1, 300))
def test_partitions_are_those_of_kafkas_producer_and_lines_without_a_user_are_in_0(
    keys: list[str | None], partitions: int
) -> None:
    expected = [0 if key is None else (kafka_murmur2(key.encode()) & 0x7FFFFFFF) % partitions for key in keys]
    assert partitions_of(keys, partitions) == expected
    assert partitions_of(keys, partitions) == expected


def test_a_full_memo_changes_nothing_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prectr.stream.events.partition, "_MAX_CACHED_HASHES", 10)
    monkeypatch.setattr(prectr.stream.events.partition, "_hashes", {})
    keys = [f"user-{n}" for n in range(100)]
    expected = [(kafka_murmur2(key.encode()) & 0x7FFFFFFF) % 7 for key in keys]
    assert [partitions_of([key], 7)[0] for key in keys] == expected
    assert len(prectr.stream.events.partition._hashes) <= 10
    assert partitions_of([*keys, keys[0]], 7) == [*expected, expected[0]]
    assert partitions_of([keys[0], *keys[50:]], 7) == [expected[0], *expected[50:]]
