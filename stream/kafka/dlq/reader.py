"""Reads `dead-letters` from end to end, or single letters, in bounded memory."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import ends_of
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.dlq.records import Address, Letter, is_note, read_letter, read_note

_POLL_MS: Final = 200
_POLL_RECORDS: Final = 200
_FETCH_BYTES: Final = 16 << 20
_PARTITION_BYTES: Final = 4 << 20
_STUCK_SECONDS: Final = 90.0
"""Longer than any transaction of ours may stay open."""
_NEAR: Final = 1_000
"""A letter that is not further on than this is read up to, since a new fetch costs more."""

Progress = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    """Progress that nobody looks at."""


class LetterReader:
    """Reads the committed records of `dead-letters`, one partition after another, some at a time."""

    def __init__(self, connection: Connection, topics: Topics, *, await_open: bool = False) -> None:
        """Take note of where the topic begins and ends.

        await_open: the end lies behind the transactions that are open now, and reading waits for their ends; else it
        lies in front of them.

        Raises:
            PrectrError: no broker, or no topic.
        """
        self.topic = topics.dead_letters
        self._connection = connection
        self._partitions = [TopicPartition(self.topic, n) for n in range(partition_count(connection, self.topic))]
        self._consumer = connection.consumer(
            group_id=None,
            max_poll_records=_POLL_RECORDS,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_PARTITION_BYTES,
        )
        try:
            with connection.errors():
                firsts = self._consumer.beginning_offsets(self._partitions)
                ends = self._consumer.end_offsets(self._partitions)
            self.firsts = [int(firsts[partition]) for partition in self._partitions]
            self.ends = [int(ends[partition]) for partition in self._partitions]
            if await_open:
                self.ends = ends_of(connection, self.topic)
        except BaseException:
            self._consumer.close()
            raise

    def read(
        self, start: Mapping[int, int] | None = None, progress: Progress = _silent
    ) -> Iterator[list[ConsumerRecord]]:
        """Yield the records in order of partition and offset. start: by partition, where to begin; None for all.

        Raises:
            PrectrError: nothing comes, since the broker is away or a transaction stays open.
        """
        starts = dict(enumerate(self.firsts)) if start is None else start
        spans = [
            (partition, max(first, self.firsts[partition]), self.ends[partition])
            for partition, first in sorted(starts.items())
            if partition < len(self._partitions)
        ]
        total = sum(max(0, end - first) for _, first, end in spans)
        done = 0
        for partition, first, end in spans:
            for records, position in self._between(partition, first, end):
                progress(done + min(position, end) - first, total)
                yield records
            done += max(0, end - first)

    def find(self, wanted: Sequence[Address]) -> Iterator[tuple[Address, ConsumerRecord]]:
        """Fetch records by their addresses, in that order; what is not there is left out.

        Raises:
            PrectrError: as `read`.
        """
        for partition, (first, end) in enumerate(zip(self.firsts, self.ends, strict=True)):
            offsets = sorted({at.offset for at in wanted if at.partition == partition and first <= at.offset < end})
            while offsets:
                # Offsets that lie near one another are read in one run.
                last = next((n for n in range(1, len(offsets)) if offsets[n] - offsets[n - 1] > _NEAR), len(offsets))
                run, offsets = set(offsets[:last]), offsets[last:]
                for records, _ in self._between(partition, min(run), max(run) + 1):
                    yield from ((Address(partition, each.offset), each) for each in records if each.offset in run)

    def where(self, address: Address) -> str:
        """What to say of an address at which there is no letter."""
        if address.partition >= len(self._partitions):
            return f"{self.topic} has the partitions 0 to {len(self._partitions) - 1}"
        first, end = self.firsts[address.partition], self.ends[address.partition]
        if first == end:
            return f"partition {address.partition} of {self.topic} is empty"
        if not first <= address.offset < end:
            return f"partition {address.partition} of {self.topic} holds the offsets {first} to {end - 1}"
        return "that offset is a transaction's mark, or of a transaction that was aborted"

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _between(self, partition: int, first: int, end: int) -> Iterator[tuple[list[ConsumerRecord], int]]:
        """Yield the records from `first` to before `end`, and the offset up to which all has been read."""
        if first >= end:
            return
        at = TopicPartition(self.topic, partition)
        with self._connection.errors():
            self._consumer.assign([at])
            self._consumer.seek(at, first)
        position, moved = first, time.monotonic()
        while position < end:
            with self._connection.errors():
                polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
                reached = int(self._consumer.position(at))
            if reached > position:
                position, moved = reached, time.monotonic()
            elif time.monotonic() - moved > _STUCK_SECONDS:
                raise PrectrError(
                    f"{self.topic} {partition}:{position}: nothing came for {_STUCK_SECONDS:.0f} s: the broker is "
                    "away, or a program has left a transaction open there. Start the same command again later"
                )
            yield [record for record in polled.get(at, []) if record.offset < end], position


class Retried:
    """Which letters were retried: a bit for each offset."""

    def __init__(self, reader: LetterReader) -> None:
        self._firsts = list(reader.firsts)
        self._bits = [bytearray((end - first + 7) // 8) for first, end in zip(reader.firsts, reader.ends, strict=True)]

    def add(self, address: Address) -> None:
        """Remember a letter; one in front of the log's beginning is forgotten."""
        place = address.offset - self._firsts[address.partition]
        if 0 <= place < 8 * len(self._bits[address.partition]):
            self._bits[address.partition][place // 8] |= 1 << place % 8

    def __contains__(self, address: Address) -> bool:
        place = address.offset - self._firsts[address.partition]
        bits = self._bits[address.partition]
        return 0 <= place < 8 * len(bits) and bool(bits[place // 8] & 1 << place % 8)


def read_retried(reader: LetterReader, start: Mapping[int, int] | None = None, progress: Progress = _silent) -> Retried:
    """Read all notes. start: by partition, the first letter that is of interest: its notes lie behind it.

    Raises:
        PrectrError: as `LetterReader.read`; a note cannot be read.
    """
    retried = Retried(reader)
    for records in reader.read(start, progress):
        for record in records:
            if is_note(record):
                for group in read_note(record):
                    for offset in group.offsets:
                        retried.add(Address(record.partition, offset))
    return retried


def find_letter(connection: Connection, topics: Topics, address: Address) -> Letter:
    """Fetch one letter.

    Raises:
        PrectrError: there is none at that address.
    """
    reader = LetterReader(connection, topics)
    try:
        record = next((found for _, found in reader.find([address])), None)
        if record is None:
            raise PrectrError(f"there is no letter {address}: {reader.where(address)}; see `prectr dlq list`")
    finally:
        reader.close()
    if is_note(record):
        raise PrectrError(f"{address} is no letter: it notes which letters were retried; see `prectr dlq list`")
    return read_letter(record)
