"""Reads all of `dead-letters`, or single dead letters, in bounded memory."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import PrectrError, Remedy
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.dlq.records import (
    DeadLetterRecord,
    DeadLetterRef,
    decode_dead_letter,
    decode_retry_markers,
    is_retry_marker,
)

_POLL_MS: Final = 200
_MAX_POLL_RECORDS: Final = 16
_MAX_FETCH_BYTES: Final = 16 << 20
_MAX_PARTITION_FETCH_BYTES: Final = 4 << 20
_STALL_TIMEOUT: Final = 90.0
"""Longer than the transaction timeout of this program's producers."""
_MAX_READ_GAP: Final = 1_000
"""Offsets up to which it is cheaper to read on to the next dead letter than to start a new fetch."""

Progress = Callable[[int, int], None]


def _no_progress(_done: int, _total: int) -> None:
    """Ignore progress."""


class DeadLetterReader:
    """Reads the committed records of `dead-letters`, one partition after another, in batches."""

    def __init__(self, connection: Connection, topics: Topics, *, await_open: bool = False) -> None:
        """Fetch the range of offsets to read.

        Args:
            await_open: include transactions that are open now, and wait for their end when reading; otherwise the
                range ends before them.

        Raises:
            PrectrError: the broker does not answer, or the topic does not exist.
        """
        self.topic = topics.dead_letters
        self._connection = connection
        self._partitions = [TopicPartition(self.topic, n) for n in range(partition_count(connection, self.topic))]
        self._consumer = connection.consumer(
            group_id=None,
            max_poll_records=_MAX_POLL_RECORDS,
            fetch_max_bytes=_MAX_FETCH_BYTES,
            max_partition_fetch_bytes=_MAX_PARTITION_FETCH_BYTES,
        )
        try:
            with connection.translate_errors():
                starts = self._consumer.beginning_offsets(self._partitions)
                ends = self._consumer.end_offsets(self._partitions)
            self.start_offsets = [int(starts[partition]) for partition in self._partitions]
            self.end_offsets = [int(ends[partition]) for partition in self._partitions]
            if await_open:
                self.end_offsets = fetch_end_offsets(connection, self.topic)
        except BaseException:
            self._consumer.close()
            raise

    def read(
        self, start: Mapping[int, int] | None = None, progress: Progress = _no_progress
    ) -> Iterator[list[ConsumerRecord]]:
        """Yield the records in order of partition and offset.

        Args:
            start: by partition, the first offset to read; None for all partitions from their start.
            progress: called with the offsets read, and their total.

        Raises:
            PrectrError: no records arrive, because the broker is unavailable or a transaction stays open.
        """
        starts = dict(enumerate(self.start_offsets)) if start is None else start
        ranges = [
            (partition, max(first, self.start_offsets[partition]), self.end_offsets[partition])
            for partition, first in sorted(starts.items())
            if partition < len(self._partitions)
        ]
        total = sum(max(0, end - first) for _, first, end in ranges)
        done = 0
        for partition, first, end in ranges:
            for records, position in self._read_range(partition, first, end):
                progress(done + min(position, end) - first, total)
                yield records
            done += max(0, end - first)

    def find(self, refs: Sequence[DeadLetterRef]) -> Iterator[tuple[DeadLetterRef, ConsumerRecord]]:
        """Yield the records with the given refs, in order of partition and offset; missing ones are left out.

        Raises:
            PrectrError: as `read`.
        """
        for partition, (first, end) in enumerate(zip(self.start_offsets, self.end_offsets, strict=True)):
            offsets = sorted({ref.offset for ref in refs if ref.partition == partition and first <= ref.offset < end})
            while offsets:
                # Offsets that are close together are read in one run.
                last = next(
                    (n for n in range(1, len(offsets)) if offsets[n] - offsets[n - 1] > _MAX_READ_GAP), len(offsets)
                )
                run, offsets = set(offsets[:last]), offsets[last:]
                for records, _ in self._read_range(partition, min(run), max(run) + 1):
                    yield from ((DeadLetterRef(partition, each.offset), each) for each in records if each.offset in run)

    def describe_missing(self, ref: DeadLetterRef) -> str:
        """Return, in words, why there is no dead letter at a ref."""
        if ref.partition >= len(self._partitions):
            return f"{self.topic} has partitions 0 to {len(self._partitions) - 1}"
        first, end = self.start_offsets[ref.partition], self.end_offsets[ref.partition]
        if first == end:
            return f"partition {ref.partition} of {self.topic} is empty"
        if not first <= ref.offset < end:
            return f"partition {ref.partition} of {self.topic} holds offsets {first} to {end - 1}"
        return "that offset is a transaction marker, or of a transaction that was aborted"

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def _read_range(self, partition: int, first: int, end: int) -> Iterator[tuple[list[ConsumerRecord], int]]:
        """Yield the records from `first` to before `end`, each batch with the offset after it."""
        if first >= end:
            return
        topic_partition = TopicPartition(self.topic, partition)
        with self._connection.translate_errors():
            self._consumer.assign([topic_partition])
            self._consumer.seek(topic_partition, first)
        position, progressed_at = first, time.monotonic()
        while position < end:
            with self._connection.translate_errors():
                polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
                new_position = int(self._consumer.position(topic_partition))
            if new_position > position:
                position, progressed_at = new_position, time.monotonic()
            elif time.monotonic() - progressed_at > _STALL_TIMEOUT:
                raise PrectrError(
                    f"{self.topic} {partition}:{position}: no records for {_STALL_TIMEOUT:.0f} s: the broker is "
                    "unavailable, or a program has left a transaction open there. Rerun the command later"
                )
            yield [record for record in polled.get(topic_partition, []) if record.offset < end], position


class RetriedSet:
    """Set of the retried dead letters, as one bit per offset."""

    def __init__(self, reader: DeadLetterReader) -> None:
        self._start_offsets = list(reader.start_offsets)
        self._bits = [
            bytearray((end - first + 7) // 8)
            for first, end in zip(reader.start_offsets, reader.end_offsets, strict=True)
        ]

    def add(self, ref: DeadLetterRef) -> None:
        """Add a dead letter; one before the start of the log is ignored."""
        index = ref.offset - self._start_offsets[ref.partition]
        if 0 <= index < 8 * len(self._bits[ref.partition]):
            self._bits[ref.partition][index // 8] |= 1 << index % 8

    def __contains__(self, ref: DeadLetterRef) -> bool:
        index = ref.offset - self._start_offsets[ref.partition]
        bits = self._bits[ref.partition]
        return 0 <= index < 8 * len(bits) and bool(bits[index // 8] & 1 << index % 8)


def read_retried(
    reader: DeadLetterReader, start: Mapping[int, int] | None = None, progress: Progress = _no_progress
) -> RetriedSet:
    """Read all retry markers.

    Args:
        start: by partition, the first dead letter of interest; its retry markers follow it. None for all.

    Raises:
        PrectrError: as `DeadLetterReader.read`; a retry marker cannot be decoded.
    """
    retried = RetriedSet(reader)
    for records in reader.read(start, progress):
        for record in records:
            if is_retry_marker(record):
                for group in decode_retry_markers(record):
                    for offset in group.offsets:
                        retried.add(DeadLetterRef(record.partition, offset))
    return retried


def find_dead_letter(connection: Connection, topics: Topics, ref: DeadLetterRef) -> DeadLetterRecord:
    """Fetch one dead letter.

    Raises:
        PrectrError: there is none at `ref`.
    """
    reader = DeadLetterReader(connection, topics)
    try:
        record = next((found for _, found in reader.find([ref])), None)
        if record is None:
            raise PrectrError(
                f"there is no dead letter {ref}: {reader.describe_missing(ref)}", Remedy.LIST_DEAD_LETTERS
            )
    finally:
        reader.close()
    if is_retry_marker(record):
        raise PrectrError(f"{ref} is not a dead letter but a retry marker", Remedy.LIST_DEAD_LETTERS)
    return decode_dead_letter(record)
