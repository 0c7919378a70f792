"""How far logs reach, whoever has read them and whatever is committed."""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from kafka import TopicPartition

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import partition_count


class Span(NamedTuple):
    """Offsets of the first record that a partition still holds, and behind its last one, uncommitted ones included."""

    first: int
    end: int


class Look(NamedTuple):
    """How far the logs of all partitions reach. seen: some time before. ends: just now."""

    seen: list[int]
    ends: list[int]


class LogEnds:
    """Asks the broker how far partitions reach; from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._consumer = connection.consumer(group_id=None, isolation_level="read_uncommitted")

    def of(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset behind the last record of each partition."""
        with self._lock:
            ends: dict[TopicPartition, int] = self._consumer.end_offsets(list(partitions))
        return ends

    def spans(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Span]:
        """From where to where each partition reaches."""
        with self._lock:
            firsts = self._consumer.beginning_offsets(list(partitions))
            ends = self._consumer.end_offsets(list(partitions))
        return {partition: Span(firsts[partition], ends[partition]) for partition in partitions}

    def of_topic(self, topic: str) -> list[int]:
        """Offset behind the last record of each partition of a topic."""
        count = partition_count(self._connection, topic)
        partitions = [TopicPartition(topic, number) for number in range(count)]
        with self._connection.errors():
            ends = self.of(partitions)
        return [ends[partition] for partition in partitions]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def ends_of(connection: Connection, topic: str) -> list[int]:
    """Offset behind the last record of each partition of a topic."""
    ends = LogEnds(connection)
    try:
        return ends.of_topic(topic)
    finally:
        ends.close()
