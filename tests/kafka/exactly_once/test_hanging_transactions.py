"""Missing markers of a transaction are written again, with the outcome that it had."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, TransactionState
from kafka.consumer.group import ConsumerGroupMetadata
from kafka.errors import KafkaError
from kafka.producer.transaction_manager import TransactionalRequestResult, TxnOffsetCommitHandler
from kafka.structs import OffsetAndMetadata

from prectr.state.errors import StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.transactions import producer as producer_module
from prectr.stream.kafka.transactions.admin import TransactionAdmin
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata, CommittedOffsets
from prectr.stream.kafka.transactions.hanging import recover_and_open
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer
from tests.kafka.live import Live

pytestmark = pytest.mark.usefixtures("broker")
METADATA = '["topic",0,0,[],[]]'
NEVER = 60.0


class OneTask:
    """A task of stage `aggregate`, opened by any number of owners."""

    def __init__(self, live: Live) -> None:
        self.connection = Connection(live.bootstrap)
        self.group = f"{live.prefix}aggregate"
        self.transactional_id = f"{self.group}-aggregate-0"
        self.activity = TopicPartition(f"{live.prefix}joined-pages", 0)
        self.examples = TopicPartition(f"{live.prefix}training-examples", 0)
        self.offsets = CommittedOffsets(self.connection, self.group, self.activity.topic)
        self.member = ConsumerGroupMetadata(group_id=self.group)
        self.former_member = ConsumerGroupMetadata(self.group, 3, "a member that has left", None)

    def producer(self, *, begun: bool = False) -> KafkaProducer:
        """Create a producer with the task's id, as an owner does; `begun`: it has fenced earlier ones."""
        producer = self.connection.producer(transactional_id=self.transactional_id)
        if begun:
            producer.init_transactions()
        return producer

    def opened(self, producer: KafkaProducer) -> TransactionalProducer:
        """Open the task as its next owner."""
        return recover_and_open(self.transactional_id, self.offsets, 0, producer, [self.examples.topic])

    def position(self, offset: int) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the commit of an offset."""
        return {self.activity: OffsetAndMetadata(offset, METADATA, -1)}

    def lose_the_offset(self, producer: KafkaProducer, *, commit: bool = True) -> None:
        """End a transaction with offset 7 whose marker does not reach the group's offset."""
        producer.begin_transaction()
        producer.send(self.examples.topic, value=b"frame", partition=0).get(30)
        manager = producer._transaction_manager
        result = TransactionalRequestResult()
        manager._pending_txn_offset_commits.update(self.position(7))
        manager._enqueue_request(TxnOffsetCommitHandler(manager, self.member, self.position(7), result))
        producer._sender.wakeup()
        result.wait(30)
        (producer.commit_transaction if commit else producer.abort_transaction)()

    def lose_the_output(self, producer: KafkaProducer) -> None:
        """Commit a transaction with offset 7 whose marker does not reach the output partition."""
        producer.begin_transaction()
        # The partition is not registered with the coordinator.
        producer._transaction_manager._partitions_in_transaction.add(self.examples)
        producer.send(self.examples.topic, value=b"lost", partition=0).get(30)
        producer.send_offsets_to_transaction(self.position(7), self.group)
        producer.commit_transaction()

    def before_reissue(self) -> KafkaProducer:
        """Return an owner that has erased the outcome of the hanging transaction, before it writes the marker."""
        owner = self.producer(begun=True)
        self.lose_the_offset(owner)
        owner.close()
        return self.producer(begun=True)

    def committed(self) -> int:
        """Return the committed offset, once it is stable."""
        found = self.offsets.fetch(0)
        assert found is not None
        return found[0]

    def readable(self) -> list[bytes]:
        """Return the examples that a read_committed consumer receives."""
        consumer = self.connection.consumer(group_id=None)
        consumer.assign([self.examples])
        consumer.seek_to_beginning()
        end = consumer.end_offsets([self.examples])[self.examples]
        found: list[bytes] = []
        while consumer.position(self.examples) < end:
            found += [record.value for records in consumer.poll(timeout_ms=200).values() for record in records]
        consumer.close()
        return found


@pytest.fixture
def task(live: Live) -> Iterator[OneTask]:
    """A task on a broker that does not verify that a record belongs to a registered partition of its transaction."""
    live.create()
    task = OneTask(live)

    def verify(wanted: str) -> None:
        name = "transaction.partition.verification.enable"
        resource = ConfigResource(ConfigResourceType.BROKER, "1", configs={name: wanted})
        task.connection.call_admin(lambda admin: admin.alter_configs([resource]))

    verify("false")
    yield task
    verify("true")
    task.offsets.close()


@pytest.fixture
def interfere(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[Any]]:
    """Runs an action before the next owner describes the last transaction for the second time."""

    def meanwhile(happens: Callable[[], None]) -> list[Any]:
        last = TransactionAdmin.describe
        answers: list[Any] = []

        def describe(self: TransactionAdmin, transactional_id: str) -> Any:
            if len(answers) == 1:
                happens()
            answers.append(last(self, transactional_id))
            return answers[-1]

        monkeypatch.setattr(TransactionAdmin, "describe", describe)
        return answers

    return meanwhile


@pytest.mark.parametrize("committed", [True, False])
def test_an_offset_of_a_hanging_transaction_follows_its_outcome(committed: bool, task: OneTask) -> None:
    owner = task.producer(begun=True)
    owner.begin_transaction()
    owner.send_offsets_to_transaction(task.position(3), task.group)
    owner.commit_transaction()
    assert task.offsets.is_stable(0, 5.0)
    task.lose_the_offset(owner, commit=committed)
    owner.close()
    assert not task.offsets.is_stable(0, 2.0)
    task.opened(task.producer()).close()
    assert task.committed() == (7 if committed else 3)


def test_markers_being_reissued_by_another_owner_are_not_undone(
    task: OneTask, interfere: Callable[[Callable[[], None]], list[Any]]
) -> None:
    """The other has begun at the first description, and ends before the second."""
    other = task.before_reissue()
    other.begin_transaction()
    other.partitions_for(task.examples.topic)
    other._transaction_manager.maybe_add_partition_to_transaction(task.examples)
    other.send_offsets_to_transaction({}, task.group)
    answers = interfere(other.commit_transaction)
    task.opened(task.producer()).close()
    assert answers[0].state is TransactionState.ONGOING
    assert answers[-1].state is TransactionState.COMPLETE_COMMIT
    assert task.committed() == 7
    other.close(timeout=0)


def test_an_owner_about_to_write_markers_is_given_time(
    task: OneTask, interfere: Callable[[Callable[[], None]], list[Any]]
) -> None:
    other = task.before_reissue()

    def reissue() -> None:
        other.begin_transaction()
        other.send_offsets_to_transaction({}, task.group)
        other.commit_transaction()

    answers = interfere(reissue)
    task.opened(task.producer()).close()
    assert answers[0].state is TransactionState.EMPTY
    assert task.committed() == 7
    other.close(timeout=0)


def test_an_unknown_transaction_outcome_needs_an_operator(task: OneTask) -> None:
    task.before_reissue().close()
    with pytest.raises(StateError, match=r"no longer has its outcome.*kafka-transactions.sh"):
        task.opened(task.producer())


def test_pending_output_is_resolved_before_the_next_owner_continues(task: OneTask) -> None:
    owner = task.producer(begun=True)
    task.lose_the_output(owner)
    owner.close()
    task.opened(task.producer()).close()
    assert task.readable() == [b"lost"]


def output_of(task: OneTask) -> PendingOutput:
    """Return one record for the examples."""
    output = PendingOutput()
    output.add(task.examples.topic, 0, b"first")
    return output


def test_an_offset_is_not_undone_by_the_next_transaction(task: OneTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction is aborted because its owner has left the group, as after every crash of a broker."""
    producer = task.producer()
    transactions = task.opened(producer)
    transactions.commit(PendingOutput(), 3, CommitMetadata("topic"), task.member)
    task.lose_the_offset(producer)
    monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", 0.0)
    with pytest.raises(KafkaError):
        transactions.commit(output_of(task), 9, CommitMetadata("topic"), task.former_member)
    transactions.close()
    assert task.committed() == 7


def test_output_is_not_undone_by_the_next_transaction(task: OneTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above: the markers of the next transaction would end both."""
    producer = task.producer()
    transactions = task.opened(producer)
    transactions.commit(output_of(task), 3, CommitMetadata("topic"), task.member)
    task.lose_the_output(producer)
    assert task.readable() == [b"first"]
    monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", 0.0)
    with pytest.raises(KafkaError):
        transactions.commit(output_of(task), 9, CommitMetadata("topic"), task.former_member)
    transactions.close()
    assert task.readable() == [b"first", b"lost"]
    assert task.committed() == 7


def test_a_loss_found_after_the_next_transaction_has_begun_is_not_undone(
    task: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has restarted meanwhile: an abort of the next transaction would undo the last one."""
    producer = task.producer()
    transactions = task.opened(producer)
    transactions.commit(output_of(task), 3, CommitMetadata("topic"), task.member)
    task.lose_the_output(producer)
    add = producer_module.add_to_transaction

    def restart(producer: KafkaProducer, partitions: Any, timeout: float) -> None:
        add(producer, partitions, timeout)
        monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", 0.0)

    monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", NEVER)
    monkeypatch.setattr(producer_module, "add_to_transaction", restart)
    with pytest.raises(KafkaError, match="written again"):
        transactions.commit(output_of(task), 9, CommitMetadata("topic"), task.member)
    transactions.close()
    assert task.readable() == [b"first", b"lost"]
