"""Reads all of `dead-letters`, or single dead letters, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import PrectrError, Remedy
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.records import (
    DeadLetterRecord,
    DeadLetterRef,
    decode_dead_letter,
    decode_retry_markers,
    is_retry_marker,
)
from prectr.stream.kafka.io.topic_reader import Progress, TopicReader, no_progress

_MAX_POLL_RECORDS: Final = 16
_MAX_READ_GAP: Final = 1_000
"""Offsets up to which it is cheaper to read on to the next dead letter than to start a new fetch."""


class DeadLetterReader(TopicReader):
    """Reads the committed records of `dead-letters`."""

    def __init__(self, connection: Connection, topics: Topics, *, await_open: bool = False) -> None:
        """As a reader of a topic."""
        super().__init__(connection, topics.dead_letters, max_poll_records=_MAX_POLL_RECORDS, await_open=await_open)

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
                for records, _ in self.read_range(partition, min(run), max(run) + 1):
                    yield from ((DeadLetterRef(partition, each.offset), each) for each in records if each.offset in run)

    def describe_missing(self, ref: DeadLetterRef) -> str:
        """Return, in words, why there is no dead letter at a ref."""
        if ref.partition >= len(self.end_offsets):
            return f"{self.topic} has partitions 0 to {len(self.end_offsets) - 1}"
        first, end = self.start_offsets[ref.partition], self.end_offsets[ref.partition]
        if first == end:
            return f"partition {ref.partition} of {self.topic} is empty"
        if not first <= ref.offset < end:
            return f"partition {ref.partition} of {self.topic} holds offsets {first} to {end - 1}"
        return "that offset is a transaction marker, or of a transaction that was aborted"


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
    reader: DeadLetterReader, start: Mapping[int, int] | None = None, progress: Progress = no_progress
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
