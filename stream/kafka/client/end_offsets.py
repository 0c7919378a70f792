"""How far logs reach, whoever has read them and whatever is committed."""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from kafka import TopicPartition

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import partition_count


class OffsetRange(NamedTuple):
    """Offsets of the first record that a partition still holds, and behind its last one, uncommitted ones included."""

    start: int
    end: int


class EndOffsetsSample(NamedTuple):
    """How far the logs of all partitions reach. seen: some time before. ends: just now."""

    previous: list[int]
    current: list[int]


class EndOffsets:
    """Asks the broker how far partitions reach; from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._consumer = connection.consumer(group_id=None, isolation_level="read_uncommitted")

    def fetch(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset behind the last record of each partition."""
        with self._lock:
            ends: dict[TopicPartition, int] = self._consumer.end_offsets(list(partitions))
        return ends

    def fetch_ranges(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """From where to where each partition reaches."""
        with self._lock:
            starts = self._consumer.beginning_offsets(list(partitions))
            ends = self._consumer.end_offsets(list(partitions))
        return {partition: OffsetRange(starts[partition], ends[partition]) for partition in partitions}

    def fetch_topic(self, topic: str) -> list[int]:
        """Offset behind the last record of each partition of a topic."""
        count = partition_count(self._connection, topic)
        partitions = [TopicPartition(topic, number) for number in range(count)]
        with self._connection.translate_errors():
            ends = self.fetch(partitions)
        return [ends[partition] for partition in partitions]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def fetch_end_offsets(connection: Connection, topic: str) -> list[int]:
    """Offset behind the last record of each partition of a topic."""
    end_offsets = EndOffsets(connection)
    try:
        return end_offsets.fetch_topic(topic)
    finally:
        end_offsets.close()
