"""What lies on the topics, read by a consumer of the benchmark: nothing of it is taken from the system's own counts."""

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.stream.oracle import committed_records
from prectr.stream.events.contract import MAX_EVENT_BYTES
from prectr.stream.kafka.client.client import Connection
from prectr.stream.ordering.frames import decode_frame

_MODULUS: Final = 1 << 64
_POLL_MS: Final = 500
_FUTURE: Final = "future_timestamp"
_REASONS_OF_VALID_EVENTS: Final = ("conflicting_page", _FUTURE)
Place = tuple[int, int]
"""Partition and offset of an event."""


def fingerprint(value: bytes) -> int:
    """64 bits of a hash of a line as the loader sends it; sums of them compare collections in any order."""
    return _hash(value[: MAX_EVENT_BYTES + 1])


@dataclass
class ContentSum:
    """Number of values, and the sum of their fingerprints."""

    count: int = 0
    total: int = 0

    def add(self, value: bytes) -> None:
        """Count a value."""
        self.count += 1
        self.total = (self.total + fingerprint(value)) % _MODULUS


@dataclass
class EventsTopic:
    """The events: by place, the hashes of key and of whole value; by partition, a file with a line for each."""

    logs: list[Path]
    hashes: dict[Place, tuple[int, int]] = field(default_factory=dict)
    content: ContentSum = field(default_factory=ContentSum)

    def offsets(self, partition: int) -> list[int]:
        """The offsets of a partition, one for each line of its file."""
        return [offset for number, offset in self.hashes if number == partition]


@dataclass
class DeadLettersTopic:
    """The dead letters.

    invalid: sources whose value is no valid event. strangers: number of dead letters whose source is not on the topic,
    or has another value or, unless it is a future event, another key.
    """

    by_source: Counter[Place] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    invalid: set[Place] = field(default_factory=set)
    strangers: int = 0

    @property
    def repeated(self) -> int:
        """Number of sources with more than one dead letter."""
        return sum(count > 1 for count in self.by_source.values())


def read_events(connection: Connection, topic: str, partitions: int, folder: Path) -> EventsTopic:
    """Read the events, and copy them to a file for each partition, as a log of one line each."""
    found = EventsTopic([folder / f"{topic}-{number}.jsonl" for number in range(partitions)])
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in found.logs]
        for record in committed_records(connection, topic, partitions):
            value = record.value or b""
            found.hashes[record.partition, record.offset] = _hashes(record.key, value)
            found.content.add(value)
            # A carriage return is white space to JSON, and an error within a text, exactly where a line feed is.
            files[record.partition].write(value.replace(b"\n", b"\r") + b"\n")
    return found


def read_dead_letters(connection: Connection, topic: str, partitions: int, events: EventsTopic) -> DeadLettersTopic:
    """Read the dead letters, and compare each with the event that it names."""
    found = DeadLettersTopic()
    for record in committed_records(connection, topic, partitions):
        headers = dict(record.headers[:5])
        source = int(headers["partition"]), int(headers["offset"])
        found.by_source[source] += 1
        reason = headers["reason"].decode()
        found.reasons[reason] += 1
        if reason not in _REASONS_OF_VALID_EVENTS:
            found.invalid.add(source)
        key, value = _hashes(record.key, record.value or b"")
        source_key, source_value = events.hashes.get(source, (None, None))
        # A future event is rejected long after it was read; its dead letter has the event's user as its key.
        found.strangers += value != source_value or (key != source_key and reason != _FUTURE)
    return found


def count_examples(connection: Connection, topic: str, partitions: int) -> int:
    """Count the examples in the frames of a topic."""
    return sum(
        len(decode_frame(record.value, f"examples {record.partition}:{record.offset}").records)
        for record in committed_records(connection, topic, partitions)
    )


def _hashes(key: bytes | None, value: bytes) -> tuple[int, int]:
    return -1 if key is None else _hash(key), _hash(value)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
