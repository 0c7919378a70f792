"""What a broker has forgotten to tell of a transaction is told once more, the way that it ended."""

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
    """A task of stage `aggregate`, whose owners come and go."""

    def __init__(self, live: Live) -> None:
        self.connection = Connection(live.bootstrap)
        self.group = f"{live.prefix}aggregate"
        self.transactional_id = f"{self.group}-aggregate-0"
        self.activity = TopicPartition(f"{live.prefix}joined-pages", 0)
        self.examples = TopicPartition(f"{live.prefix}training-examples", 0)
        self.offsets = CommittedOffsets(self.connection, self.group, self.activity.topic)
        self.member = ConsumerGroupMetadata(group_id=self.group)
        self.nobody = ConsumerGroupMetadata(self.group, 3, "a member that has left", None)

    def producer(self, *, begun: bool = False) -> KafkaProducer:
        """A producer of the task's id, as an owner has it; begun: earlier ones are fenced."""
        producer = self.connection.producer(transactional_id=self.transactional_id)
        if begun:
            producer.init_transactions()
        return producer

    def opened(self, producer: KafkaProducer) -> TransactionalProducer:
        """The task opened by its next owner."""
        return recover_and_open(self.transactional_id, self.offsets, 0, producer, [self.examples.topic])

    def position(self, offset: int) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a commit of the offset says."""
        return {self.activity: OffsetAndMetadata(offset, METADATA, -1)}

    def lose_the_offset(self, producer: KafkaProducer, *, commit: bool = True) -> None:
        """A transaction with offset 7 that ends as the coordinator has it, and of which the group hears nothing."""
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
        """A transaction with offset 7 that is committed, and of whose end the partition of its output hears nothing."""
        producer.begin_transaction()
        # The coordinator is not told that the partition is one of the transaction's.
        producer._transaction_manager._partitions_in_transaction.add(self.examples)
        producer.send(self.examples.topic, value=b"lost", partition=0).get(30)
        producer.send_offsets_to_transaction(self.position(7), self.group)
        producer.commit_transaction()

    def about_to_tell(self) -> KafkaProducer:
        """An owner who has wiped out how the transaction ended that lost its offset, and has not told it yet."""
        owner = self.producer(begun=True)
        self.lose_the_offset(owner)
        owner.close()
        return self.producer(begun=True)

    def committed(self) -> int:
        """The committed offset, once it is decided."""
        found = self.offsets.fetch(0)
        assert found is not None
        return found[0]

    def readable(self) -> list[bytes]:
        """What is read committed of the examples."""
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
    """On a broker that does not ask whether what it is sent belongs to the transaction that it says it does."""
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
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[Any]]:
    """Lets something happen before the next owner asks how the last transaction ended for the second time."""

    def meanwhile(happens: Callable[[], None]) -> list[Any]:
        last = TransactionAdmin.describe
        answers: list[Any] = []

        def told(self: TransactionAdmin, transactional_id: str) -> Any:
            if len(answers) == 1:
                happens()
            answers.append(last(self, transactional_id))
            return answers[-1]

        monkeypatch.setattr(TransactionAdmin, "describe", told)
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
    task: OneTask, asked: Callable[[Callable[[], None]], list[Any]]
) -> None:
    """The other has begun when the next owner asks for the first time, and ends before it asks again."""
    other = task.about_to_tell()
    other.begin_transaction()
    other.partitions_for(task.examples.topic)
    other._transaction_manager.maybe_add_partition_to_transaction(task.examples)
    other.send_offsets_to_transaction({}, task.group)
    answers = asked(other.commit_transaction)
    task.opened(task.producer()).close()
    assert answers[0].state is TransactionState.ONGOING
    assert answers[-1].state is TransactionState.COMPLETE_COMMIT
    assert task.committed() == 7
    other.close(timeout=0)


def test_an_owner_about_to_write_markers_is_given_time(
    task: OneTask, asked: Callable[[Callable[[], None]], list[Any]]
) -> None:
    other = task.about_to_tell()

    def tells() -> None:
        other.begin_transaction()
        other.send_offsets_to_transaction({}, task.group)
        other.commit_transaction()

    answers = asked(tells)
    task.opened(task.producer()).close()
    assert answers[0].state is TransactionState.EMPTY
    assert task.committed() == 7
    other.close(timeout=0)


def test_an_unknown_transaction_outcome_needs_an_operator(task: OneTask) -> None:
    task.about_to_tell().close()
    with pytest.raises(StateError, match=r"no longer has its outcome.*kafka-transactions.sh"):
        task.opened(task.producer())


def test_pending_output_is_resolved_before_the_next_owner_continues(task: OneTask) -> None:
    owner = task.producer(begun=True)
    task.lose_the_output(owner)
    owner.close()
    task.opened(task.producer()).close()
    assert task.readable() == [b"lost"]


def outbox_of(task: OneTask) -> PendingOutput:
    """One record for the examples."""
    outbox = PendingOutput()
    outbox.add(task.examples.topic, 0, b"first")
    return outbox


def test_an_offset_is_not_undone_by_the_next_transaction(task: OneTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is aborted since its owner has left the group, as after every crash of a broker."""
    producer = task.producer()
    transactions = task.opened(producer)
    transactions.commit(PendingOutput(), 3, CommitMetadata("topic"), task.member)
    task.lose_the_offset(producer)
    monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", 0.0)
    with pytest.raises(KafkaError):
        transactions.commit(outbox_of(task), 9, CommitMetadata("topic"), task.nobody)
    transactions.close()
    assert task.committed() == 7


def test_what_was_put_out_is_not_undone_by_the_next_transaction(task: OneTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above; the end of the next transaction would be that of both."""
    producer = task.producer()
    transactions = task.opened(producer)
    transactions.commit(outbox_of(task), 3, CommitMetadata("topic"), task.member)
    task.lose_the_output(producer)
    assert task.readable() == [b"first"]
    monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", 0.0)
    with pytest.raises(KafkaError):
        transactions.commit(outbox_of(task), 9, CommitMetadata("topic"), task.nobody)
    transactions.close()
    assert task.readable() == [b"first", b"lost"]
    assert task.committed() == 7


def test_what_is_found_lost_once_the_next_transaction_has_begun_is_not_undone(
    task: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker was away and back meanwhile: to abort the next one would undo the last."""
    producer = task.producer()
    transactions = task.opened(producer)
    transactions.commit(outbox_of(task), 3, CommitMetadata("topic"), task.member)
    task.lose_the_output(producer)
    add = producer_module.add_to_transaction

    def restart(producer: KafkaProducer, partitions: Any, timeout: float) -> None:
        add(producer, partitions, timeout)
        monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", 0.0)

    monkeypatch.setattr("prectr.stream.kafka.transactions.producer._MIN_BROKER_RESTART", NEVER)
    monkeypatch.setattr(producer_module, "add_to_transaction", restart)
    with pytest.raises(KafkaError, match="written again"):
        transactions.commit(outbox_of(task), 9, CommitMetadata("topic"), task.member)
    transactions.close()
    assert task.readable() == [b"first", b"lost"]
