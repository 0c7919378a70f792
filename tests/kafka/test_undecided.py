"""What a broker has forgotten to tell of a transaction is told once more, the way that it ended."""

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, TransactionState
from kafka.consumer.group import ConsumerGroupMetadata
from kafka.errors import KafkaError
from kafka.producer.transaction_manager import TransactionalRequestResult, TxnOffsetCommitHandler
from kafka.structs import OffsetAndMetadata

from state.errors import StateError
from stream.kafka.client import Connection
from stream.kafka.decisions import Decisions
from stream.kafka.transaction import Committed, CommittedOffsets, Outbox, Transactions
from stream.kafka.undecided import open_transactions
from tests.kafka.live import Live

pytestmark = pytest.mark.usefixtures("broker")
METADATA = '["topic",0,0,[],[]]'


@pytest.fixture
def connection(live: Live) -> Iterator[Connection]:
    """Of a broker that does not ask whether an offset belongs to the transaction that it says it does."""
    live.create()
    connection = Connection(live.bootstrap)
    name = "transaction.partition.verification.enable"
    connection.ask(
        lambda admin: admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", configs={name: "false"})])
    )
    yield connection
    connection.ask(
        lambda admin: admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", configs={name: "true"})])
    )


def leave_undecided(producer: KafkaProducer, live: Live, offset: int, *, commit: bool) -> None:
    """A transaction that ends as the coordinator has it, and of which the group's offsets hear nothing."""
    partition = TopicPartition(f"{live.prefix}search-activity", 0)
    producer.begin_transaction()
    producer.send(f"{live.prefix}training-examples", value=b"frame", partition=0).get(30)
    manager = producer._transaction_manager
    offsets = {partition: OffsetAndMetadata(offset, METADATA, -1)}
    result = TransactionalRequestResult()
    manager._pending_txn_offset_commits.update(offsets)
    manager._enqueue_request(
        TxnOffsetCommitHandler(manager, ConsumerGroupMetadata(group_id=f"{live.prefix}queries"), offsets, result)
    )
    producer._sender.wakeup()
    result.wait(30)
    (producer.commit_transaction if commit else producer.abort_transaction)()


def next_owner(connection: Connection, live: Live, transactional_id: str) -> KafkaProducer:
    """The producer of whoever comes after an owner whose commit of offset 7 was left undecided."""
    owner = connection.producer(transactional_id=transactional_id)
    owner.init_transactions()
    leave_undecided(owner, live, 7, commit=True)
    owner.close()
    producer = connection.producer(transactional_id=transactional_id)
    producer.init_transactions()
    return producer


@pytest.mark.parametrize("committed", [True, False])
def test_an_offset_that_was_left_undecided_is_as_its_transaction_ended(
    committed: bool, live: Live, connection: Connection
) -> None:
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    topics = [f"{live.prefix}training-examples"]
    partition = TopicPartition(f"{live.prefix}search-activity", 0)
    owner = connection.producer(transactional_id=transactional_id)
    owner.init_transactions()
    owner.begin_transaction()
    owner.send_offsets_to_transaction({partition: OffsetAndMetadata(3, METADATA, -1)}, group)
    owner.commit_transaction()
    offsets = CommittedOffsets(connection, group, partition.topic)
    assert offsets.decided(0, 5.0)
    leave_undecided(owner, live, 7, commit=committed)
    owner.close()
    assert not offsets.decided(0, 2.0)

    producer = connection.producer(transactional_id=transactional_id)
    open_transactions(transactional_id, offsets, 0, producer, topics).close()
    found = offsets.of(0)
    assert found is not None
    assert found[0] == (7 if committed else 3)
    offsets.close()


def test_an_end_that_another_owner_is_telling_once_more_is_not_undone(
    live: Live, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has begun when the next owner asks for the first time, and ends before it asks again."""
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    topic = f"{live.prefix}training-examples"
    other = next_owner(connection, live, transactional_id)
    other.begin_transaction()
    other.partitions_for(topic)
    other._transaction_manager.maybe_add_partition_to_transaction(TopicPartition(topic, 0))
    other.send_offsets_to_transaction({}, group)
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    last = Decisions.last
    asked: list[Any] = []

    def told(self: Decisions, transactional_id: str) -> Any:
        if len(asked) == 1:
            other.commit_transaction()
        asked.append(last(self, transactional_id))
        return asked[-1]

    monkeypatch.setattr(Decisions, "last", told)
    producer = connection.producer(transactional_id=transactional_id)
    open_transactions(transactional_id, offsets, 0, producer, [topic]).close()
    monkeypatch.undo()
    assert asked[0].state is TransactionState.ONGOING
    assert asked[-1].state is TransactionState.COMPLETE_COMMIT
    found = offsets.of(0)
    assert found is not None
    assert found[0] == 7
    offsets.close()
    other.close(timeout=0)


def test_an_owner_that_is_about_to_tell_an_end_is_given_the_time(
    live: Live, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has wiped out how it ended, and has not begun yet, when the next owner asks for the first time."""
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    other = next_owner(connection, live, transactional_id)
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    last = Decisions.last
    asked: list[Any] = []

    def told(self: Decisions, transactional_id: str) -> Any:
        if len(asked) == 1:
            other.begin_transaction()
            other.send_offsets_to_transaction({}, group)
            other.commit_transaction()
        asked.append(last(self, transactional_id))
        return asked[-1]

    monkeypatch.setattr(Decisions, "last", told)
    producer = connection.producer(transactional_id=transactional_id)
    topics = [f"{live.prefix}training-examples"]
    open_transactions(transactional_id, offsets, 0, producer, topics).close()
    monkeypatch.undo()
    assert asked[0].state is TransactionState.EMPTY
    found = offsets.of(0)
    assert found is not None
    assert found[0] == 7
    offsets.close()
    other.close(timeout=0)


def test_an_end_that_was_lost_is_told_before_the_next_transaction_could_undo_it(
    live: Live, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is aborted since its owner has left the group, as after every crash of a broker."""
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    topics = [f"{live.prefix}training-examples"]
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    producer = connection.producer(transactional_id=transactional_id)
    transactions = open_transactions(transactional_id, offsets, 0, producer, topics)
    nobody = ConsumerGroupMetadata(group, 3, "a member that has left", None)
    transactions.commit(Outbox(), 3, Committed("topic"), ConsumerGroupMetadata(group_id=group))
    leave_undecided(producer, live, 7, commit=True)
    monkeypatch.setattr("stream.kafka.transaction._RESTART", 0.0)
    outbox = Outbox()
    outbox.add(topics[0], 0, b"what is aborted")
    with pytest.raises(KafkaError):
        transactions.commit(outbox, 9, Committed("topic"), nobody)
    transactions.close()
    found = offsets.of(0)
    assert found is not None
    assert found[0] == 7
    offsets.close()


def test_where_nobody_knows_how_it_ended_a_person_is_asked(live: Live, connection: Connection) -> None:
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    other = next_owner(connection, live, transactional_id)
    other.close()
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    producer = connection.producer(transactional_id=transactional_id)
    with pytest.raises(StateError, match=r"no longer says how it ended.*kafka-transactions.sh"):
        open_transactions(transactional_id, offsets, 0, producer, [])
    offsets.close()


def lose_an_output(producer: KafkaProducer, live: Live, value: bytes, offset: int) -> None:
    """A transaction that is committed, and of whose end the partition that it wrote to hears nothing."""
    examples = TopicPartition(f"{live.prefix}training-examples", 0)
    producer.begin_transaction()
    # The coordinator is not told that the partition is one of the transaction's.
    producer._transaction_manager._partitions_in_transaction.add(examples)
    producer.send(examples.topic, value=value, partition=0).get(30)
    position = {TopicPartition(f"{live.prefix}search-activity", 0): OffsetAndMetadata(offset, METADATA, -1)}
    producer.send_offsets_to_transaction(position, f"{live.prefix}queries")
    producer.commit_transaction()


def readable(connection: Connection, live: Live) -> list[bytes]:
    """What is read committed of the examples' first partition."""
    partition = TopicPartition(f"{live.prefix}training-examples", 0)
    consumer = connection.consumer(group_id=None)
    consumer.assign([partition])
    consumer.seek_to_beginning()
    end = consumer.end_offsets([partition])[partition]
    found: list[bytes] = []
    while consumer.position(partition) < end:
        found += [record.value for records in consumer.poll(timeout_ms=200).values() for record in records]
    consumer.close()
    return found


def test_what_was_put_out_is_not_undone_by_the_next_transaction(
    live: Live, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, but the end is lost for the output: the next transaction's end would be that of both."""
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    topic = f"{live.prefix}training-examples"
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    producer = connection.producer(transactional_id=transactional_id)
    transactions = open_transactions(transactional_id, offsets, 0, producer, [topic])
    nobody = ConsumerGroupMetadata(group, 3, "a member that has left", None)
    outbox = Outbox()
    outbox.add(topic, 0, b"first")
    transactions.commit(outbox, 3, Committed("topic"), ConsumerGroupMetadata(group_id=group))
    lose_an_output(producer, live, b"lost", 7)
    assert readable(connection, live) == [b"first"]
    monkeypatch.setattr("stream.kafka.transaction._RESTART", 0.0)
    with pytest.raises(KafkaError):
        transactions.commit(outbox, 9, Committed("topic"), nobody)
    transactions.close()
    assert readable(connection, live) == [b"first", b"lost"]
    found = offsets.of(0)
    assert found is not None
    assert found[0] == 7
    offsets.close()


def test_where_the_broker_was_away_during_the_next_transaction(
    live: Live, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is found lost only once the next transaction has begun: to abort that one would undo the last."""
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    topic = f"{live.prefix}training-examples"
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    producer = connection.producer(transactional_id=transactional_id)
    transactions = open_transactions(transactional_id, offsets, 0, producer, [topic])
    outbox = Outbox()
    outbox.add(topic, 0, b"first")
    transactions.commit(outbox, 3, Committed("topic"), ConsumerGroupMetadata(group_id=group))
    lose_an_output(producer, live, b"lost", 7)
    add = Transactions._add

    def away(self: Transactions, partitions: Any) -> None:
        add(self, partitions)
        monkeypatch.setattr("stream.kafka.transaction._RESTART", 0.0)

    monkeypatch.setattr("stream.kafka.transaction._RESTART", 60.0)
    monkeypatch.setattr(Transactions, "_add", away)
    with pytest.raises(KafkaError, match="told again"):
        transactions.commit(outbox, 9, Committed("topic"), ConsumerGroupMetadata(group_id=group))
    transactions.close()
    assert readable(connection, live) == [b"first", b"lost"]
    offsets.close()


def test_what_was_put_out_is_decided_before_the_next_owner_goes_on(live: Live, connection: Connection) -> None:
    group, transactional_id = f"{live.prefix}queries", f"{live.prefix}queries-queries-0"
    topic = f"{live.prefix}training-examples"
    offsets = CommittedOffsets(connection, group, f"{live.prefix}search-activity")
    owner = connection.producer(transactional_id=transactional_id)
    owner.init_transactions()
    lose_an_output(owner, live, b"lost", 7)
    owner.close()
    producer = connection.producer(transactional_id=transactional_id)
    open_transactions(transactional_id, offsets, 0, producer, [topic]).close()
    assert readable(connection, live) == [b"lost"]
    offsets.close()
