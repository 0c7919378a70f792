"""Parses fetched record batches with aiokafka's compiled parser, which takes a fifth of kafka-python's time.

As `client_internals`, this file uses undocumented parts of kafka-python, which tests/stream/client lists.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

from aiokafka.errors import CorruptRecordException  # type: ignore[import-untyped]
from aiokafka.record.default_records import DefaultRecordBatch  # type: ignore[import-untyped]
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords

from prectr.stream.kafka.client.decompression import decompress

_HEADER_BYTES: Final = 61
_ATTRIBUTES_OFFSET: Final = 21
_ATTRIBUTES: Final = struct.Struct(">h")
_CODEC_MASK: Final = 0x07
_READ_COMMITTED: Final = 1
_NO_HEADERS: Final = -1


def parse_compiled(consumer: KafkaConsumer) -> None:
    """Let a consumer parse what it fetches by `PartitionRecords`."""
    consumer._fetcher.PartitionRecords = PartitionRecords


class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of a fetched partition, parsed as they are taken.

    Differs from its base in what parses a batch of format version 2, and in that a batch that cannot be decompressed,
    or only to more than `MAX_BATCH_BYTES`, raises CorruptRecordError.
    """

    def _unpack_records(
        self, tp: TopicPartition, records: MemoryRecords, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[ConsumerRecord]:
        if key_deserializer is not None or value_deserializer is not None:
            raise NotImplementedError("deserializers are not supported")
        batch = None
        while records.has_next():
            batch = records.next_batch()
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(
                    f"Record batch for partition {tp} at offset {batch.base_offset} failed crc check"
                )
            if batch.magic < 2:
                yield from self._legacy_records(tp, batch)
                continue
            self.leader_epoch = batch.leader_epoch
            if self._is_visible(batch):
                yield from self._records(tp, batch)
            # Compaction may have removed the last records.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_visible(self, batch: Any) -> bool:
        """Return whether a batch has records of a transaction that was not aborted, or of none; note its marker."""
        if not batch.records_count:
            return False  # compaction keeps the header of a producer's last batch
        if self.isolation_level == _READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch

    def _records(self, tp: TopicPartition, batch: Any) -> Iterator[ConsumerRecord]:
        """The records of a batch of format version 2."""
        topic, partition, leader_epoch = tp.topic, tp.partition, self.leader_epoch
        last = None
        try:
            for record in DefaultRecordBatch(_decompressed(batch._buffer)):
                key, value, headers = record.key, record.value, record.headers
                key_size = len(key) if key is not None else -1
                value_size = len(value) if value is not None else -1
                header_size = _header_size(headers) if headers else _NO_HEADERS
                self.records_read += 1
                self.bytes_read += max(key_size, 0) + max(value_size, 0)
                last = record.offset
                self.next_fetch_offset = last + 1
                yield ConsumerRecord(
                    topic,
                    partition,
                    leader_epoch,
                    last,
                    record.timestamp,
                    record.timestamp_type,
                    key,
                    value,
                    headers,
                    None,
                    key_size,
                    value_size,
                    header_size,
                )
        except (CorruptRecordError, CorruptRecordException, UnicodeDecodeError) as error:
            after = f"base offset {batch.base_offset}" if last is None else f"after offset {last}"
            raise CorruptRecordError(f"Record batch for partition {tp}, {after}: {error}") from error

    def _legacy_records(self, tp: TopicPartition, batch: Any) -> Iterator[ConsumerRecord]:
        """The records of a batch of format version 0 or 1."""
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(f"Record for partition {tp} at offset {record.offset} failed crc check")
            self.records_read += 1
            self.bytes_read += record.size_in_bytes
            self.next_fetch_offset = record.offset + 1
            yield ConsumerRecord(
                tp.topic,
                tp.partition,
                self.leader_epoch,
                record.offset,
                record.timestamp,
                record.timestamp_type,
                record.key,
                record.value,
                record.headers,
                record.checksum,
                len(record.key) if record.key is not None else -1,
                len(record.value) if record.value is not None else -1,
                _NO_HEADERS,
            )


def _decompressed(batch: bytearray) -> bytes:
    """Return a batch of format version 2 as if its producer had not compressed it; its checksum no longer fits."""
    (attributes,) = _ATTRIBUTES.unpack_from(batch, _ATTRIBUTES_OFFSET)
    codec = attributes & _CODEC_MASK
    if not codec:
        return bytes(batch)
    header = batch[:_HEADER_BYTES]
    _ATTRIBUTES.pack_into(header, _ATTRIBUTES_OFFSET, attributes & ~_CODEC_MASK)
    return bytes(header) + decompress(codec, bytes(memoryview(batch)[_HEADER_BYTES:]))


def _header_size(headers: list[tuple[str, bytes | None]]) -> int:
    return sum(len(key.encode()) + len(value or b"") for key, value in headers)
