"""A transaction is committed as a whole or has no effect, and never ends the one before it the wrong way."""

from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, ProducerFencedError
from kafka.structs import ConsumerGroupMetadata

from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.transactions import producer as producer_module
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata, CommittedOffsets
from prectr.stream.kafka.transactions.hanging import recover_and_open
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer
from tests.kit.kafka.broker import FakeBroker
from tests.kit.kafka.clients import FakeConnection

TOPICS = Topics()
GROUP = "aggregate"
SOURCE = TopicPartition(TOPICS.joined_pages, 0)


class OneTask:
    """The task of a partition, of which any number of owners can be opened."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.broker.create(TOPICS, 2)
        self.connection = FakeConnection("fake:9092", broker=self.broker)
        self.offsets = CommittedOffsets(self.connection, GROUP, SOURCE.topic)
        self.member = self.broker.groups[GROUP].join(SOURCE.topic, None)
        self.member.generation = self.broker.groups[GROUP].generation
        self.metadata: ConsumerGroupMetadata = self.broker.groups[GROUP].metadata(GROUP, self.member)

    def open(self) -> TransactionalProducer:
        producer: Any = self.connection.producer(transactional_id="task-0")
        return recover_and_open("task-0", self.offsets, 0, producer, [TOPICS.examples])

    def commit(self, producer: TransactionalProducer, offset: int, *values: bytes, metadata: Any = None) -> None:
        output = PendingOutput()
        for value in values:
            output.add(TOPICS.examples, 1, value)
        producer.commit(output, offset, CommitMetadata("id", emitted=offset), metadata or self.metadata)

    @property
    def state(self) -> tuple[list[bytes], int | None]:
        """Committed output and offset."""
        committed = self.broker.committed.get((GROUP, SOURCE))
        return self.broker.values(TOPICS.examples)[1], None if committed is None else committed.offset


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> OneTask:
    monkeypatch.setattr(producer_module, "_MIN_BROKER_RESTART", 0.0)
    monkeypatch.setattr(producer_module, "MARKER_TIMEOUT", 0.1)
    monkeypatch.setattr("prectr.stream.kafka.transactions.hanging._MARKER_APPLY_TIMEOUT", 0.1)
    monkeypatch.setattr("prectr.stream.kafka.transactions.hanging._REISSUE_TIMEOUT", 0.1)
    return OneTask()


def test_output_and_offset_become_visible_together(task: OneTask) -> None:
    producer = task.open()
    task.commit(producer, 3, b"a", b"b")
    assert task.state == ([b"a", b"b"], 3)
    assert task.offsets.fetch(0) == (3, CommitMetadata("id", emitted=3))
    task.commit(producer, 5, b"c")
    assert task.state == ([b"a", b"b", b"c"], 5)


def test_the_steps_of_a_commit_have_their_order(task: OneTask) -> None:
    producer = task.open()
    del task.broker.calls[:]
    task.commit(producer, 3, b"a")
    assert task.broker.calls == ["begin", "send", "flush", "add_offsets", "commit", "commit_acknowledgement"]


@pytest.mark.parametrize("operation", ["send", "flush", "add_offsets", "commit"])
def test_a_failed_step_aborts_the_transaction(operation: str, task: OneTask) -> None:
    producer = task.open()
    task.commit(producer, 3, b"a")
    task.broker.fail(operation, KafkaError("no"))
    with pytest.raises(KafkaError):
        task.commit(producer, 5, b"b")
    assert task.broker.calls[-1] == "abort"
    assert task.state == ([b"a"], 3)


def test_a_timeout_leaves_the_transaction_to_the_next_owner(task: OneTask) -> None:
    """Its outcome is unknown, so it is not aborted by the producer that got no answer."""
    producer = task.open()
    task.broker.fail("commit", KafkaTimeoutError("no answer"))
    with pytest.raises(KafkaTimeoutError):
        task.commit(producer, 5, b"lost")
    assert "abort" not in task.broker.calls
    assert not task.offsets.is_stable(0, 0.0)
    task.commit(task.open(), 5, b"again")
    assert task.state == ([b"again"], 5)


def test_a_commit_whose_acknowledgement_is_lost_stays_committed(task: OneTask) -> None:
    producer = task.open()
    task.broker.fail("commit_acknowledgement", KafkaTimeoutError("no answer"))
    with pytest.raises(KafkaTimeoutError):
        task.commit(producer, 5, b"a")
    task.open()
    assert task.state == ([b"a"], 5)


def test_the_next_owner_fences_the_previous_one(task: OneTask) -> None:
    first = task.open()
    task.commit(first, 3, b"a")
    second = task.open()
    with pytest.raises(ProducerFencedError):
        task.commit(first, 4, b"of the first")
    task.commit(second, 4, b"b")
    assert task.state == ([b"a", b"b"], 4)


def test_a_member_of_an_earlier_generation_commits_nothing(task: OneTask) -> None:
    producer = task.open()
    task.broker.groups[GROUP].evict()
    with pytest.raises(KafkaError, match="another generation"):
        task.commit(producer, 3, b"a")
    assert task.state == ([], None)


def test_missing_markers_are_written_again_before_the_next_transaction(task: OneTask) -> None:
    """The coordinator has ended the transaction, but the output partition still holds it as open."""
    producer = task.open()
    task.commit(producer, 3, b"a")
    lose_markers = LostMarkers(task, producer)
    lose_markers.commit(4, b"b")
    assert task.state == ([b"a"], 4)
    task.commit(producer, 5, b"c")
    assert task.state == ([b"a", b"b", b"c"], 5)


def test_markers_found_missing_after_the_begin_are_not_turned_into_an_abort(
    task: OneTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = task.open()
    LostMarkers(task, producer).commit(4, b"b")
    monkeypatch.setattr(producer_module, "_MIN_BROKER_RESTART", 60.0)
    add = producer_module.add_to_transaction

    def restart_broker(client: Any, partitions: Any, timeout: float) -> None:
        add(client, partitions, timeout)
        monkeypatch.setattr(producer_module, "_MIN_BROKER_RESTART", 0.0)

    monkeypatch.setattr(producer_module, "add_to_transaction", restart_broker)
    with pytest.raises(KafkaError, match=r"lost markers .* written again"):
        task.commit(producer, 5, b"c")
    assert task.state == ([b"b"], 4)


def test_the_next_owner_ends_a_hanging_transaction_as_it_was_decided(task: OneTask) -> None:
    producer = task.open()
    LostMarkers(task, producer).commit(4, b"b")
    assert task.state == ([], 4)
    task.open()
    assert task.state == ([b"b"], 4)


class LostMarkers:
    """Commits a transaction whose markers do not reach the output partition."""

    def __init__(self, task: OneTask, producer: TransactionalProducer) -> None:
        self._task = task
        self._producer = producer

    def commit(self, offset: int, value: bytes) -> None:
        log = self._task.broker.logs[TopicPartition(TOPICS.examples, 1)]
        before = log.end
        self._task.commit(self._producer, offset, value)
        assert log.entries.pop().record is None
        log.open[log.entries[before].transaction] = before
