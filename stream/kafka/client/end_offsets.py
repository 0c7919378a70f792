"""First and end offsets of partitions, open and aborted transactions included."""

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from kafka import TopicPartition

from prectr.state.errors import Remedy, StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import partition_count


class OffsetRange(NamedTuple):
    """Offset of the first record that a partition retains, and the offset after its last one, committed or not."""

    start: int
    end: int


def offset_out_of_range(where: str, next_offset: int, log_start: int, *remedies: Remedy) -> StateError:
    """Return the error for a log that no longer holds the next record; `where` names the topic and partition."""
    return StateError(
        f"{where}: offset {next_offset} is next, but the log begins at {log_start}: retention has removed records that "
        "were never read, or that are needed to rebuild the state. Nothing is skipped",
        *remedies,
        Remedy.START_OVER_LIVE,
    )


class EndOffsetsSample(NamedTuple):
    """End offsets of all partitions: those of the previous sample, and the current ones."""

    previous: list[int]
    current: list[int]


class EndOffsets:
    """Fetches offset ranges from the broker; thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._consumer = connection.consumer(group_id=None, isolation_level="read_uncommitted")

    def fetch(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset after the last record of each partition."""
        with self._lock:
            ends: dict[TopicPartition, int] = self._consumer.end_offsets(list(partitions))
        return ends

    def fetch_ranges(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """Return the range of offsets that each partition holds."""
        with self._lock:
            starts = self._consumer.beginning_offsets(list(partitions))
            ends = self._consumer.end_offsets(list(partitions))
        return {partition: OffsetRange(starts[partition], ends[partition]) for partition in partitions}

    def fetch_topic(self, topic: str) -> list[int]:
        """Return the offset after the last record of each partition of a topic."""
        count = partition_count(self._connection, topic)
        partitions = [TopicPartition(topic, number) for number in range(count)]
        with self._connection.translate_errors():
            ends = self.fetch(partitions)
        return [ends[partition] for partition in partitions]

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def fetch_end_offsets(connection: Connection, topic: str) -> list[int]:
    """Return the offset after the last record of each partition of a topic."""
    end_offsets = EndOffsets(connection)
    try:
        return end_offsets.fetch_topic(topic)
    finally:
        end_offsets.close()
