"""Where the log ends, uncommitted records included."""

from collections.abc import Sequence

from kafka import TopicPartition

from stream.kafka.client import Connection
from stream.kafka.topics import partition_count


class LogEnds:
    """Asks the broker how far partitions reach, whoever has read them and whatever is committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._consumer = connection.consumer(group_id=None, isolation_level="read_uncommitted")

    def of(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset behind the last record of each partition."""
        ends: dict[TopicPartition, int] = self._consumer.end_offsets(list(partitions))
        return ends

    def first(self, partition: TopicPartition) -> int:
        """Offset of the first record that a partition still holds."""
        return int(self._consumer.beginning_offsets([partition])[partition])

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
