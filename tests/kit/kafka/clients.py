"""Consumer, producer and admin client of the fake broker, and the connection that creates them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import TransactionDescription, TransactionState
from kafka.errors import (
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    TransactionalIdNotFoundError,
)
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from tests.kit.kafka.broker import CLUSTER, FakeBroker
from tests.kit.kafka.group import Member, run_callback

_MAX_WAIT = 0.05


@dataclass(frozen=True, slots=True)
class FakeConnection(Connection):
    """Connects to a broker in memory."""

    broker: FakeBroker = field(default_factory=FakeBroker)

    def _connect(self, client: Any, settings: Mapping[str, Any]) -> Any:
        kinds = {KafkaConsumer: FakeConsumer, KafkaProducer: FakeProducer, KafkaAdminClient: FakeAdmin}
        return kinds[client](self.broker, settings)


class _FakePosition(NamedTuple):
    """The state of an assigned partition."""

    consumer: "FakeConsumer"
    partition: TopicPartition

    @property
    def position(self) -> OffsetAndMetadata:
        return OffsetAndMetadata(self.consumer.position(self.partition), "", -1)

    def seek(self, position: OffsetAndMetadata) -> None:
        self.consumer.seek(self.partition, position.offset)


class FakeConsumer:
    """Reads assigned partitions, or is a member of a group and reads nothing."""

    def __init__(self, broker: FakeBroker, settings: Mapping[str, Any]) -> None:
        self._broker = broker
        self._group = settings.get("group_id")
        self._committed_only = settings["isolation_level"] == "read_committed"
        self._limit = settings.get("max_poll_records", 500)
        self._strategy = settings.get("partition_assignment_strategy", [None])
        self._fetcher = SimpleNamespace()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._listener: Any = None
        self._member: Member | None = None
        self._closed = False

    @property
    def _cluster(self) -> "FakeConsumer":
        return self

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {each.partition for each in self._broker.partitions_of(topic)} or None

    def topic_id(self, topic: str) -> str | None:
        return self._broker.topic_ids.get(topic)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._positions = {partition: self._positions.get(partition, 0) for partition in partitions}

    def unsubscribe(self) -> None:
        self._positions = {}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if self._member is None:
            self._require(partition)
            self._positions[partition] = offset

    @property
    def _subscription(self) -> "FakeConsumer":
        return self

    @property
    def assignment(self) -> "Mapping[TopicPartition, _FakePosition]":
        return {partition: _FakePosition(self, partition) for partition in self._positions}

    def position(self, partition: TopicPartition) -> int:
        self._require(partition)
        return self._positions[partition]

    def highwater(self, partition: TopicPartition) -> int | None:
        return self._broker.logs[partition].end if partition in self._positions else None

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self._broker.logs[partition].start for partition in partitions}

    def end_offsets(
        self, partitions: Sequence[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        with self._broker.lock:
            logs = {partition: self._broker.logs[partition] for partition in partitions}
            return {where: log.stable_end if self._committed_only else log.end for where, log in logs.items()}

    def committed(self, partition: TopicPartition, *, metadata: bool, timeout_ms: int) -> OffsetAndMetadata | None:
        assert metadata
        assert self._group is not None
        self._broker.call("committed")
        if self._broker.pending_offset(self._group, partition):
            raise KafkaTimeoutError("the offset is not stable")
        return self._broker.committed.get((self._group, partition))

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        if self._member is not None:
            self._run_member(self._member, timeout_ms / 1000)
            return {}
        self._broker.call("poll")
        found = {}
        with self._broker.lock:
            for partition, position in self._positions.items():
                if partition in self._paused:
                    continue
                log = self._broker.logs[partition]
                if position > log.end:
                    raise OffsetOutOfRangeError({partition: position})
                records, end = log.read(max(position, log.start), committed=self._committed_only, limit=self._limit)
                self._positions[partition] = end
                if records:
                    found[partition] = records
        if not found:
            time.sleep(min(timeout_ms / 1000, _MAX_WAIT))
        return found

    def subscribe(self, topics: Sequence[str], listener: Any) -> None:
        assert self._group is not None
        self._listener = listener
        self._member = self._broker.groups[self._group].join(topics[0], self._strategy[0])

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def group_metadata(self) -> ConsumerGroupMetadata:
        assert self._group is not None
        assert self._member is not None
        return self._broker.groups[self._group].metadata(self._group, self._member)

    def close(self, timeout_ms: int | None = None) -> None:
        self._closed = True
        if self._member is not None:
            self._broker.groups[self._group or ""].leave(self._member)
            with self._broker.groups[self._group or ""].changed:
                self._broker.groups[self._group or ""].changed.notify_all()

    def _run_member(self, member: Member, timeout: float) -> None:
        """Rebalance as the group requires, until the consumer is closed or an error is injected."""
        group = self._broker.groups[self._group or ""]
        deadline = time.monotonic() + timeout
        while not self._closed and time.monotonic() < deadline:
            self._broker.call("heartbeat")
            with group.changed:
                group.changed.wait_for(lambda: self._closed or group.needs_rejoin(member), _MAX_WAIT)
                if self._closed or not group.needs_rejoin(member):
                    continue
                lost, member.lost = member.lost, False
            if member.assigned:
                callback = self._listener.on_partitions_lost if lost else self._listener.on_partitions_revoked
                assigned, member.assigned = member.assigned, []
                run_callback(callback(assigned))
            if group.rejoin(member):
                run_callback(self._listener.on_partitions_assigned(member.assigned))

    def _require(self, partition: TopicPartition) -> None:
        if partition not in self._positions:
            raise IllegalStateError(f"{partition} is not assigned")


class FakeFuture:
    """The acknowledgement of a record."""

    def __init__(self, error: KafkaError | None) -> None:
        self.exception = error
        self.is_done = True

    def succeeded(self) -> bool:
        return self.exception is None


class FakeProducer:
    """A transactional producer, with the private parts of kafka-python's that the program uses."""

    def __init__(self, broker: FakeBroker, settings: Mapping[str, Any]) -> None:
        self._broker = broker
        self._id: str = settings["transactional_id"]
        self._epoch = -1
        self._sender = SimpleNamespace(wakeup=lambda: None)
        self._transaction_manager = SimpleNamespace(
            producer_id_and_epoch=SimpleNamespace(producer_id=-1),
            maybe_add_partition_to_transaction=self._add_partition,
            is_partition_added=lambda partition: True,
            has_error=lambda: False,
        )

    def init_transactions(self) -> None:
        self._broker.call("init")
        entry = self._broker.init_producer(self._id)
        self._epoch = entry.epoch
        self._transaction_manager.producer_id_and_epoch.producer_id = entry.producer_id

    def begin_transaction(self) -> None:
        self._broker.call("begin")
        self._broker.begin(self._broker.entry(self._id, self._epoch))

    def send(
        self,
        topic: str,
        *,
        value: bytes,
        key: bytes | None = None,
        partition: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> FakeFuture:
        try:
            self._broker.call("send")
        except KafkaError as error:
            return FakeFuture(error)
        where = self._broker.partition_of_key(topic, key) if partition is None else TopicPartition(topic, partition)
        with self._broker.lock:
            number = self._add_partition(where)
            self._broker.logs[where].append(where, value, key, headers, number)
        return FakeFuture(None)

    def flush(self, timeout: float | None = None) -> None:
        self._broker.call("flush")

    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_metadata: Any
    ) -> None:
        self._broker.call("add_offsets")
        self._broker.add_offsets(self._broker.entry(self._id, self._epoch), offsets, group_metadata)

    def commit_transaction(self) -> None:
        self._broker.call("commit")
        self._broker.end(self._broker.entry(self._id, self._epoch), commit=True)
        self._broker.call("commit_acknowledgement")

    def abort_transaction(self) -> None:
        self._broker.call("abort")
        self._broker.end(self._broker.entry(self._id, self._epoch), commit=False)

    def partitions_for(self, topic: str) -> set[int]:
        return {partition.partition for partition in self._broker.partitions_of(topic)}

    def close(self, timeout: float | None = None) -> None:
        self._broker.call("close_producer")

    def _add_partition(self, partition: TopicPartition) -> int:
        transaction = self._broker.entry(self._id, self._epoch).transaction
        assert transaction is not None
        transaction.partitions.add(partition)
        return transaction.number


class FakeAdmin:
    """Describes topics, groups and transactions."""

    def __init__(self, broker: FakeBroker, settings: Mapping[str, Any]) -> None:
        self._broker = broker

    def describe_cluster(self) -> dict[str, Any]:
        return {"cluster_id": CLUSTER}

    def describe_topics(self, topics: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "error_code": 0,
                "name": name,
                "topic_id": self._broker.topic_ids[name],
                "partitions": [{"partition_index": each.partition} for each in self._broker.partitions_of(name)],
            }
            for name in topics
            if name in self._broker.topic_ids
        ]

    def list_group_offsets(self, groups: Sequence[str]) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        committed = self._broker.committed
        return {
            group: {partition: offset for (name, partition), offset in committed.items() if name == group}
            for group in groups
        }

    def describe_transactions(self, ids: Sequence[str]) -> dict[str, TransactionDescription]:
        (transactional_id,) = ids
        entry = self._broker.producers.get(transactional_id)
        if entry is None:
            raise TransactionalIdNotFoundError
        state = TransactionState.EMPTY
        if entry.transaction is not None:
            state = TransactionState.ONGOING
        elif entry.last_committed is not None:
            state = TransactionState.COMPLETE_COMMIT if entry.last_committed else TransactionState.COMPLETE_ABORT
        return {transactional_id: TransactionDescription(0, state, entry.producer_id, entry.epoch, 60_000, 0, set())}

    def describe_producers(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
        found = {}
        for partition in partitions:
            found[partition] = SimpleNamespace(
                active_producers=[
                    SimpleNamespace(
                        producer_id=entry.producer_id,
                        current_transaction_start_offset=self._broker.first_open_offset(entry, partition),
                    )
                    for entry in self._broker.producers.values()
                ]
            )
        return found

    def close(self) -> None: ...
