"""A broker in memory: logs, transactions with fencing, committed offsets, and errors on request.

It answers at once and does what Apache Kafka does where the program depends on it: `read_committed` readers see nothing
of open and aborted transactions, a new producer of a transactional id fences the old one and aborts its transaction,
and an offset is committed only by a member of the group's present generation.
"""

import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from threading import RLock
from typing import Any

from kafka import TopicPartition
from kafka.errors import CommitFailedError, ProducerFencedError
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.topics import Topics
from tests.kit.kafka.group import FakeGroup
from tests.kit.kafka.log import Partition, ProducerEntry, Transaction

CLUSTER = "fake cluster"
_UNRECORDED = ("committed", "heartbeat", "poll")


class FakeBroker:
    """Topics are created by `create`; clients come from `FakeConnection`."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.logs: dict[TopicPartition, Partition] = {}
        self.topic_ids: dict[str, str] = {}
        self.committed: dict[tuple[str, TopicPartition], OffsetAndMetadata] = {}
        self.groups: dict[str, FakeGroup] = defaultdict(FakeGroup)
        self.producers: dict[str, ProducerEntry] = {}
        self.calls: list[str] = []
        """Operations of producers, in order."""
        self._errors: dict[str, deque[Exception]] = defaultdict(deque)
        self._producer_ids: dict[int, int] = {}
        """By transaction."""

    def create(self, topics: Topics, partitions: int) -> None:
        for name in topics.all:
            self.topic_ids[name] = f"id of {name}"
            for number in range(partitions):
                self.logs[TopicPartition(name, number)] = Partition()

    def recreate(self, topic: str) -> None:
        """Delete a topic and create it again, empty."""
        with self.lock:
            self.topic_ids[topic] += " again"
            for where in self.partitions_of(topic):
                self.logs[where] = Partition()

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        with self.lock:
            del self.topic_ids[topic]

    def add_partition(self, topic: str) -> None:
        """Add a partition to a topic."""
        with self.lock:
            self.logs[TopicPartition(topic, len(self.partitions_of(topic)))] = Partition()

    def partitions_of(self, topic: str) -> list[TopicPartition]:
        return sorted(partition for partition in self.logs if partition.topic == topic)

    def fail(self, operation: str, *errors: Exception) -> None:
        """Let the next calls of an operation raise these errors, one each, instead of having an effect.

        `commit_acknowledgement` fails after its effect: the transaction is committed, and the producer gets an error.
        """
        self._errors[operation].extend(errors)

    def call(self, operation: str) -> None:
        """Record an operation and raise the error that is due."""
        with self.lock:
            if operation not in _UNRECORDED:
                self.calls.append(operation)
            if self._errors[operation]:
                raise self._errors[operation].popleft()

    def append(self, topic: str, partition: int, *values: bytes) -> None:
        """Write records outside any transaction."""
        where = TopicPartition(topic, partition)
        with self.lock:
            for value in values:
                self.logs[where].append(where, value)

    def values(self, topic: str) -> list[list[bytes]]:
        """Return the committed values of each partition."""
        with self.lock:
            logs = [self.logs[partition] for partition in self.partitions_of(topic)]
            return [[record.value for record in log.read(0, committed=True, limit=1 << 30)[0]] for log in logs]

    def init_producer(self, transactional_id: str) -> ProducerEntry:
        """Fence earlier producers of the id, and abort their transaction; returns a copy to compare epochs with."""
        with self.lock:
            entry = self.producers.setdefault(transactional_id, ProducerEntry(len(self.producers) + 1, -1))
            entry.epoch += 1
            if entry.transaction is not None:
                self._end(entry, commit=False)
            return ProducerEntry(entry.producer_id, entry.epoch)

    def entry(self, transactional_id: str, epoch: int) -> ProducerEntry:
        """Return the coordinator's entry for a producer of this epoch."""
        entry = self.producers[transactional_id]
        if entry.epoch != epoch:
            raise ProducerFencedError(f"{transactional_id}: epoch {epoch}, now {entry.epoch}")
        return entry

    def begin(self, entry: ProducerEntry) -> None:
        with self.lock:
            number = len(self._producer_ids) + 1
            self._producer_ids[number] = entry.producer_id
            entry.transaction = Transaction(number)

    def add_offsets(
        self, entry: ProducerEntry, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_metadata: Any
    ) -> None:
        with self.lock:
            assert entry.transaction is not None
            if isinstance(group_metadata, str):
                entry.transaction.group = group_metadata
            else:
                entry.transaction.group = group_metadata.group_id
                if not self.groups[group_metadata.group_id].is_current(group_metadata):
                    raise CommitFailedError("the group has another generation")
            entry.transaction.offsets |= offsets

    def end(self, entry: ProducerEntry, *, commit: bool) -> None:
        with self.lock:
            self._end(entry, commit=commit)

    def _end(self, entry: ProducerEntry, *, commit: bool) -> None:
        transaction, entry.transaction, entry.last_committed = entry.transaction, None, commit
        assert transaction is not None
        for partition in transaction.partitions:
            # A marker ends everything that the producer id has left open in the partition.
            for number in {transaction.number, *self._open_transactions(entry, partition)}:
                self.logs[partition].end_transaction(number, commit=commit)
        if commit and transaction.group is not None:
            for partition, offset in transaction.offsets.items():
                self.committed[transaction.group, partition] = offset

    def _open_transactions(self, entry: ProducerEntry, partition: TopicPartition) -> list[int]:
        return [n for n in self.logs[partition].open if self._producer_ids[n] == entry.producer_id]

    def first_open_offset(self, entry: ProducerEntry, partition: TopicPartition) -> int:
        """Return the first offset of what a producer id has left open in a partition; -1 if nothing."""
        log = self.logs[partition]
        return min((log.open[number] for number in self._open_transactions(entry, partition)), default=-1)

    def pending_offset(self, group: str, partition: TopicPartition) -> bool:
        """Return whether an open transaction holds back a group's offset."""
        return any(
            entry.transaction is not None
            and entry.transaction.group == group
            and partition in entry.transaction.offsets
            for entry in self.producers.values()
        )

    def partition_of_key(self, topic: str, key: bytes | None) -> TopicPartition:
        partitions: Iterable[TopicPartition] = self.partitions_of(topic)
        return list(partitions)[zlib.crc32(key or b"") % len(self.partitions_of(topic))]
