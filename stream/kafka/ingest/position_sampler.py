"""Samples the end offsets of all inputs, and how far other processes have read theirs, for the alignment."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from threading import Lock
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.ingest.alignment import Alignment, InputPosition
from prectr.stream.kafka.transactions.committed_offsets import CommittedOffsets

_INTERVAL: Final = 0.5
_COMMITTED_TIMEOUT: Final = 1.0
"""Seconds to wait for a pending transaction of another process; until it ends its previous position stands."""


class PositionSampler:
    """Shared by the topics of a process; thread-safe."""

    def __init__(
        self, connection: Connection, groups: Mapping[str, str], inputs: Sequence[TopicPartition], alignment: Alignment
    ) -> None:
        """Connect.

        Args:
            groups: the consumer group of each topic.
            inputs: all partitions of all topics.
        """
        self.alignment = alignment
        self._inputs = inputs
        self._lock = Lock()
        self._sampled_at = float("-inf")
        with ExitStack() as stack:
            # Committed records only: an open transaction of a producer must not let the other inputs wait.
            self._consumer: KafkaConsumer = connection.consumer(group_id=None)
            stack.callback(self._consumer.close)
            self._committed_offsets = {}
            for topic, group in groups.items():
                self._committed_offsets[topic] = CommittedOffsets(connection, group, topic)
                stack.callback(self._committed_offsets[topic].close)
            self._clients = stack.pop_all()

    def sample_if_due(self) -> None:
        """Sample, unless that was done a moment ago or another thread does it.

        Raises:
            KafkaError: the broker does not answer.
        """
        if time.monotonic() - self._sampled_at < _INTERVAL or not self._lock.acquire(blocking=False):
            return
        try:
            others = self.alignment.others(self._inputs)
            ends = self._consumer.end_offsets(list(self._inputs))
            starts = self._consumer.beginning_offsets(others) if others else {}
            positions: dict[TopicPartition, InputPosition] = {}
            for each in others:
                with suppress(KafkaTimeoutError):
                    positions[each] = self._committed_position(each, starts[each])
            self.alignment.set_sample(ends, positions)
            self._sampled_at = time.monotonic()
        finally:
            self._lock.release()

    def _committed_position(self, each: TopicPartition, start: int) -> InputPosition:
        committed = self._committed_offsets[each.topic].fetch(each.partition, _COMMITTED_TIMEOUT)
        if committed is None:
            return InputPosition(start, None)
        offset, metadata = committed
        return InputPosition(max(offset, start), metadata.read_time)

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()
