"""Batches parsed by aiokafka's compiled parser give the records of kafka-python's own, and what damages it is told."""

import gzip
import struct
from collections.abc import Callable
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from aiokafka.record.default_records import DefaultRecordBatch  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.codec import snappy_encode
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from prectr.stream.kafka.client.decompression import decompress
from prectr.stream.kafka.client.record_batches import PartitionRecords

PARTITION = TopicPartition("topic", 3)
CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
_CRC_OFFSET, _ATTRIBUTES_OFFSET, _HEADER_BYTES = 17, 21, 61
_CONTROL, _LOG_APPEND_TIME = 0x20, 0x08

Record = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
records = st.lists(
    st.tuples(
        st.integers(0, 2**41),
        st.none() | st.binary(max_size=40),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=20)), max_size=3),
    ),
    min_size=1,
    max_size=12,
)


def batch(
    given_records: list[Record],
    offset: int = 0,
    magic: int = 2,
    codec: int = 0,
    producer: int = -1,
    attributes: int = 0,
) -> bytes:
    transaction = {"transactional": True, "producer_id": producer, "producer_epoch": 0, "base_sequence": 0}
    builder = MemoryRecordsBuilder(magic, codec, 1 << 30, offset=offset if magic < 2 else 0)
    if producer >= 0:
        builder = MemoryRecordsBuilder(magic, codec, 1 << 30, **transaction)
    for timestamp, key, value, headers in given_records:
        builder.append(timestamp, key, value, headers if magic == 2 else [])
    builder.close()
    made = bytearray(builder.buffer())
    if magic == 2:
        struct.pack_into(">q", made, 0, offset)
        struct.pack_into(">i", made, 12, 7)  # leader epoch
        made[_ATTRIBUTES_OFFSET + 1] |= attributes
    return signed(made)


def signed(made: bytearray) -> bytes:
    """With the checksum that belongs to what a batch of version 2 holds."""
    if made[16] == 2:
        struct.pack_into(">I", made, _CRC_OFFSET, calc_crc32c(memoryview(made)[_ATTRIBUTES_OFFSET:]))
    return bytes(made)


def marker(offset: int, producer: int, commit: bool) -> bytes:
    """A control record: version 0, type 0 for abort and 1 for commit."""
    key, value = struct.pack(">hh", 0, int(commit)), struct.pack(">hi", 0, 0)
    return batch([(1, key, value, [])], offset, producer=producer, attributes=_CONTROL)


class Aborted:
    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id, self.first_offset = producer_id, first_offset


def parse(kind: type[Any], data: bytes, offset: int = 0, aborted: list[Aborted] | None = None) -> Any:
    """Return what a fetch gives, up to and with its error."""
    parser = kind(
        offset,
        PARTITION,
        MemoryRecords(data),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted,
    )
    found: list[ConsumerRecord] = []
    error: type[Exception] | None = None
    try:
        while parser:
            taken = parser.take(3)
            found += taken
            if not taken:
                break
    except Exception as raised:  # noqa: BLE001
        error = type(raised)
    return [tuple(each) for each in found], parser.next_fetch_offset, parser.leader_epoch, parser.records_read, error


def assert_same(data: bytes, offset: int = 0, aborted: list[Aborted] | None = None) -> Any:
    expected = parse(Fetcher.PartitionRecords, data, offset, aborted)
    assert parse(PartitionRecords, data, offset, aborted) == expected
    return expected


def test_the_compiled_parser_is_installed() -> None:
    assert DefaultRecordBatch.__module__.startswith("aiokafka.record._crecords")


@pytest.mark.parametrize("codec", CODECS, ids=CODECS.values())
@given(given_records=records, offset=st.integers(0, 2**50), begin=st.integers(0, 12), append=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_codec(codec: int, given_records: list[Record], offset: int, begin: int, append: bool) -> None:
    data = batch(given_records, offset, codec=codec, attributes=_LOG_APPEND_TIME if append else 0)
    found, *_, error = assert_same(data, offset + begin)
    assert error is None
    assert len(found) == max(len(given_records) - begin, 0)


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2, 3])
@given(given_records=records, offset=st.integers(0, 2**40))
@settings(max_examples=20, deadline=None)
def test_formats_of_old_brokers(magic: int, codec: int, given_records: list[Record], offset: int) -> None:
    if magic == 0 and codec == 3:
        pytest.skip("Kafka of that format framed lz4 differently, which needs another library")
    assert_same(batch(given_records, offset, magic, codec))


def test_format_after_format() -> None:
    plain: list[Record] = [(5, b"k", b"v", []), (6, None, None, [])]
    found, next_offset, *_ = assert_same(batch(plain, 0, 1) + batch(plain, 2) + batch(plain, 4, 0) + batch(plain, 9))
    assert len(found) == 8
    assert next_offset == 11


@given(
    ends=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["commit", "abort", "open"])), min_size=1, max_size=8),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_transactions_and_their_markers(ends: list[tuple[int, str]], data: st.DataObject) -> None:
    log, offset, aborted, visible = b"", 0, [], []
    for producer, end in ends:
        first = offset
        for _ in range(data.draw(st.integers(1, 2))):
            log += batch([(1, b"k", b"v", []), (2, b"k", b"w", [])], offset, producer=producer)
            offset += 2
        if end == "abort":
            aborted.append(Aborted(producer, first))
        else:
            visible += range(first, offset)
        if end != "open":
            log += marker(offset, producer, end == "commit")
            offset += 1
    found, next_offset, *_ = assert_same(log, 0, aborted)
    assert [record[3] for record in found] == visible
    assert next_offset == offset


def test_a_batch_emptied_by_compaction_is_passed_over() -> None:
    """kafka-python raises for a control batch without a record; the Java client passes over it."""
    for attributes in (0, _CONTROL):
        empty = bytearray(batch([(1, b"k", b"v", [])], 4, producer=1, attributes=attributes)[:_HEADER_BYTES])
        struct.pack_into(">i", empty, 8, len(empty) - 12)
        struct.pack_into(">i", empty, 57, 0)
        found, next_offset, *_, error = parse(PartitionRecords, signed(empty) + batch([(2, b"a", b"b", [])], 5))
        assert [record[3] for record in found] == [5]
        assert next_offset == 6
        assert error is None


@pytest.mark.parametrize("codec", CODECS, ids=CODECS.values())
@given(given_records=records, data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_is_noticed_by_the_checksum(
    codec: int, given_records: list[Record], data: st.DataObject
) -> None:
    made = bytearray(batch(given_records, 3, codec=codec))
    at = data.draw(st.integers(_ATTRIBUTES_OFFSET, len(made) - 1))
    made[at] ^= data.draw(st.integers(1, 255))
    assert assert_same(bytes(made))[-1] is CorruptRecordError


@given(given_records=records, changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
@settings(max_examples=400, deadline=None)
def test_records_that_are_damaged_under_a_right_checksum(
    given_records: list[Record], changes: list[tuple[int, int]]
) -> None:
    """What both can read they read alike; what kafka-python refuses is refused, with all records before it or fewer."""
    made = bytearray(batch(given_records, 3))
    for at, byte in changes:
        made[_HEADER_BYTES + at % (len(made) - _HEADER_BYTES)] = byte
    expected, *_, error = parse(Fetcher.PartitionRecords, signed(made))
    found, *_, our_error = parse(PartitionRecords, signed(made))
    assert our_error in (None, CorruptRecordError)
    if our_error is None:
        assert error is None
        assert found == expected
    else:
        assert found == expected[: len(found)]


@pytest.mark.parametrize("codec", list(CODECS)[1:], ids=list(CODECS.values())[1:])
@given(given_records=records, data=st.data())
@settings(max_examples=150, deadline=None)
def test_compressed_data_that_are_damaged_under_a_right_checksum(
    codec: int, given_records: list[Record], data: st.DataObject
) -> None:
    made = bytearray(batch(given_records, 3, codec=codec))
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(_HEADER_BYTES, len(made) - 1))] = data.draw(st.integers(0, 255))
    found, *_, error = parse(PartitionRecords, signed(made))
    assert error in (None, CorruptRecordError)
    assert len(found) <= len(given_records)


def test_a_codec_that_does_not_exist_is_named() -> None:
    made = bytearray(batch([(1, b"k", b"v", [])]))
    made[_ATTRIBUTES_OFFSET + 1] |= 6
    assert assert_same(signed(made))[-1] is UnsupportedCodecError


@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        (1, gzip.compress),
        (2, snappy_encode),
        (2, snappy.compress),
        (3, lz4.frame.compress),
        (4, zstandard.ZstdCompressor().compress),
        (4, lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data)),
        (1, lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])),
        (3, lambda data: lz4.frame.compress(data[:99]) + lz4.frame.compress(data[99:])),
        (4, lambda data: zstandard.compress(data[:99]) + zstandard.compress(data[99:])),
    ],
    ids=["gzip", "xerial", "snappy", "lz4", "zstd", "zstd, size unknown", "2 gzip", "2 lz4", "2 zstd"],
)
def test_decompression_ends_at_its_limit(codec: int, compress: Callable[[bytes], bytes]) -> None:
    plain = bytes(100_000)
    data = bytes(compress(plain))
    assert decompress(codec, data, len(plain)) == plain
    with pytest.raises(CorruptRecordError, match="decompress to more than 99,999"):
        decompress(codec, data, len(plain) - 1)


@pytest.mark.parametrize("codec", list(CODECS)[1:], ids=list(CODECS.values())[1:])
def test_compressed_data_without_their_end_are_refused(codec: int) -> None:
    made = bytearray(batch([(1, b"k", bytes(100), [])] * 9, codec=codec)[:-5])
    struct.pack_into(">i", made, 8, len(made) - 12)
    found, *_, error = parse(PartitionRecords, signed(made))
    assert error is CorruptRecordError
    assert len(found) < 9


def test_an_empty_frame_is_empty() -> None:
    assert decompress(3, lz4.frame.compress(b"")) == b""
    assert decompress(4, zstandard.compress(b"")) == b""
