"""A task of a stage on Kafka: processes one partition of a topic in transactions, exactly once."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import AuthorizationError

from prectr.state.errors import PrectrError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.tasks.task_context import EndOfInput, PunctuationContext
from prectr.stream.kafka.tasks.task_metrics import DurationHistogram
from prectr.stream.kafka.tasks.task_status import TaskState
from prectr.stream.kafka.transactions.committed_offsets import NO_LEADER_EPOCH, CommitMetadata, CommittedOffsets
from prectr.stream.kafka.transactions.hanging import recover_and_open
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer

_TRANSACTION_TIMEOUT_MS: Final = 60_000
_REQUEST_TIMEOUT_MS: Final = 10_000
_MAX_BLOCK_MS: Final = 20_000
_log = logging.getLogger(__name__)


class Task(ABC):
    """Processes one partition in transactions, each of which holds outputs and the offset after their input.

    After a failed transaction the task must be closed and opened again.
    """

    stage: ClassVar[str]

    def __init__(self, topic_partition: TopicPartition, topic_id: str, producer: TransactionalProducer) -> None:
        self.state = TaskState.CREATED
        self.topic_partition = topic_partition
        self.name = f"{self.stage}-{topic_partition.partition}"
        self.log = logging.LoggerAdapter(_log, {"stage": self.stage, "partition": topic_partition.partition})
        """Adds stage and partition to each message."""
        self.lag: int | None = None
        """Records of the partition that have not been processed; set by the task manager."""
        self.next_offset = 0
        self.committed_metadata = CommitMetadata(topic_id)
        self._producer = producer
        self._committed_offset = 0
        self._emitted = 0
        self._batch_durations, self._commit_durations = DurationHistogram(), DurationHistogram()

    @staticmethod
    def open_producer(
        connection: Connection,
        transactional_id: str,
        committed_offsets: CommittedOffsets,
        partition: int,
        output_topics: Sequence[str],
    ) -> TransactionalProducer:
        """Fence earlier owners of the task, and end what they have left open.

        Raises:
            StateError: a transaction hangs, and its outcome is no longer known.
            PrectrError: a right is missing.
            KafkaError: another process owns the task, or the broker does not answer.
        """
        producer = connection.producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            max_block_ms=_MAX_BLOCK_MS,
        )
        try:
            return recover_and_open(transactional_id, committed_offsets, partition, producer, output_topics)
        except AuthorizationError as error:
            raise PrectrError(f"transactional id {transactional_id}: {connection.describe_error(error)}") from error

    @staticmethod
    @abstractmethod
    def has_committed_end(reached_end_offsets: Sequence[int], partition: int, end: EndOfInput) -> bool:
        """Return whether a commit's metadata reports that a partition's task has processed everything up to `end`."""

    @abstractmethod
    def process(self, records: Sequence[ConsumerRecord], group_metadata: Any) -> None:
        """Process records in offset order.

        Raises:
            StateError: the log no longer holds the next record, or the state does not fit what was committed.
            KafkaError: the transaction failed, or its outcome is unknown; open the task again.
        """

    @abstractmethod
    def punctuate(self, context: PunctuationContext) -> None:
        """Act on the passing of time, in a round without records for this task.

        Raises:
            KafkaError: as `process`.
        """

    @property
    def next_leader_epoch(self) -> int:
        """Leader epoch of the record before `next_offset`; NO_LEADER_EPOCH if that is not the committed one."""
        is_committed = self.next_offset == self._committed_offset
        return self.committed_metadata.leader_epoch if is_committed else NO_LEADER_EPOCH

    @property
    def needs_end_offsets(self) -> bool:
        """Whether the next punctuation should have a sample of the end offsets."""
        return False

    def end_action(self, end: EndOfInput, consumer_position: int, group_metadata: Any) -> Callable[[], None] | None:
        """Return the call that commits and reports that everything up to `end` is processed; None if it is not due.

        Never due for a stage that receives the ends in the frames of the stage before.
        """
        return None

    def has_unread(self, end: EndOfInput, consumer_position: int) -> bool:
        """Whether records before `end` may remain that the commit does not account for."""
        return False

    def _commit(self, output: PendingOutput, offset: int, group_metadata: Any) -> None:
        """Commit outputs with the offset of the next unread record."""
        started = time.monotonic()
        self._producer.commit(output, offset, self.committed_metadata, group_metadata)
        failpoint(Failpoint.AFTER_COMMIT)
        self._commit_durations.observe(time.monotonic() - started)
        self._committed_offset, self._emitted = offset, self.committed_metadata.emitted

    def close(self) -> None:
        """Close the producer."""
        self.state = TaskState.CLOSED
        self._producer.close()
