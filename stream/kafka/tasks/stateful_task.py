"""A task with state: restores it up to the commit, then processes its partition exactly once."""

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import Remedy, StateError
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.recovery.committed_output import has_frames
from prectr.stream.kafka.tasks.commit_check import check_commit, check_settings
from prectr.stream.kafka.tasks.task import Task
from prectr.stream.kafka.tasks.task_context import TaskContext
from prectr.stream.kafka.tasks.task_metrics import TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskState, TaskStatus
from prectr.stream.kafka.tasks.task_store import TaskStore
from prectr.stream.kafka.transactions.committed_offsets import NO_LEADER_EPOCH, CommitMetadata
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer

WATERMARK_FRAME_INTERVAL: Final = 1.0
"""Seconds between frames that carry only a watermark."""
_COMMIT_VISIBLE_TIMEOUT: Final = 10.0
_RETRY_BACKOFF: Final = 0.2
_MAX_UNWRITTEN_RECORDS: Final = 32_768
_WRITE_INTERVAL: Final = 2.0
"""Seconds by which the written state may lag behind the commit: a key that changes again meanwhile is written once, and
a restart reprocesses that much."""


class StatefulTask(Task):
    """Processes one partition of a stage, and keeps state in a store of its own.

    The state may lag behind the commit and is never ahead of it: changes are written after the transaction that
    covers them. An opened task is RESTORING while its state lags: it reprocesses the records up to the commit, whose
    outputs are committed already, without output. From the commit on it is RUNNING. After a failed transaction its
    changes in memory are not written; the task must be closed and opened again.
    """

    def __init__(self, context: TaskContext, producer: TransactionalProducer, store: TaskStore) -> None:
        """Create a task in state CREATED; `open` is the way to get one that can process."""
        super().__init__(
            TopicPartition(self.input_topic(context.topics), context.partition), context.topic_id, producer
        )
        self.context = context
        self.task_store = store
        self._dirty = False
        """Whether the operator has changes that no commit covers."""
        self._unwritten = 0
        self._opened_at = self._written_at = self._last_input_at = time.monotonic()
        self._last_frame_at = 0.0
        self._restore_seconds: float | None = None
        self._processed_records = self._restored_records = 0
        self._counts: TaskCounts | None = None

    @classmethod
    def open(cls, context: TaskContext) -> Self:
        """Fence earlier owners, open the store, and return a task that expects the records from `next_offset` on.

        Raises:
            StateError: the store belongs to something else, or does not fit the commit or the log.
            KafkaError: another process owns the task, or the broker does not answer.
        """
        source = TopicPartition(cls.input_topic(context.topics), context.partition)
        producer = cls.open_producer(
            context.connection,
            f"{context.group}-{cls.stage}-{context.partition}",
            context.committed_offsets,
            context.partition,
            cls.output_topics(context.topics),
        )
        try:
            folder = context.state_dir / f"{cls.stage}-{context.partition}"
            if not folder.exists():
                # A store that was made with refused settings would stay, and would refuse the right ones.
                check_settings(context, source.topic, context.committed_offsets.fetch(context.partition))
            store = TaskStore(folder, context.identity(cls.stage, source))
        except BaseException:
            producer.close()
            raise
        task = cls(context, producer, store)
        try:
            task._initialize()
        except BaseException:
            task.close()
            raise
        return task

    def _initialize(self) -> None:
        """Load the state, from a snapshot if that is newer, and find the offset to continue at."""
        self.next_offset = self._open_operator()
        snapshots = self.context.snapshots
        if snapshots is not None and self.task_store.restore_newer(snapshots, self.name, self.next_offset):
            self.next_offset = self._open_operator()
        self._initialize_offsets()
        self.task_store.sample_stats()
        self._last_input_at = time.monotonic()

    def _initialize_offsets(self) -> None:
        context = self.context
        committed = context.committed_offsets.fetch(context.partition)
        deadline = time.monotonic() + _COMMIT_VISIBLE_TIMEOUT
        while committed is not None and committed[0] < self.next_offset and time.monotonic() < deadline:
            # A broker that has just restarted may expose a commit only some time after it acknowledged it.
            time.sleep(_RETRY_BACKOFF)
            committed = context.committed_offsets.fetch(context.partition)
        # After the commit: read before it, the end could be behind what another process committed meanwhile.
        log_range = context.end_offsets.fetch_ranges([self.topic_partition])[self.topic_partition]
        path = self.task_store.store.path
        check_commit(context, self.topic_partition.topic, path, self.next_offset, committed, log_range)
        if committed is None:
            self._check_no_output()
            committed = log_range.start, CommitMetadata(context.topic_id, start_offset=log_range.start)
        self._committed_offset, self.committed_metadata = committed
        self.committed_metadata.settings = context.settings_digest
        if not self.committed_metadata.sequences:
            self.committed_metadata.sequences = [0] * len(self._output_partitions)
        self.next_offset = max(self.next_offset, self.committed_metadata.start_offset)
        self._emitted = self.committed_metadata.emitted
        self.state = TaskState.RESTORING
        if self.next_offset == self._committed_offset:
            self._complete_restoration()

    def _check_no_output(self) -> None:
        """Check that a task without a commit has put out nothing: it would put out everything a second time.

        Raises:
            StateError: it has.
        """
        context = self.context
        topic, partitions = self.output_topics(context.topics)[0], self._output_partitions
        if has_frames(context.connection, topic, partitions, context.partition, context.config.partitions):
            raise StateError(
                f"{topic} has frames of task {self.name}, but group {context.group} has committed nothing: its offsets "
                "have expired or were deleted, or another group writes to this topic",
                Remedy.RESTORE_OFFSETS,
                Remedy.WRITER_GROUP_PREFIX,
                Remedy.OTHER_TOPIC_PREFIX,
            )

    def _complete_restoration(self) -> None:
        """Start processing: the state has reached the commit, and its counts are those of what is committed."""
        self._on_restored()
        self.state = TaskState.RUNNING
        self._restore_seconds = time.monotonic() - self._opened_at
        if self._restored_records:
            self.log.info(
                "%s: restored from %d records in %.1f s, continues at committed offset %d",
                self.name,
                self._restored_records,
                self._restore_seconds,
                self._committed_offset,
            )
        self._counts = self._current_counts()

    def status(self) -> TaskStatus:
        """Return the task's state and progress; thread-safe."""
        watermark = self._watermark
        return TaskStatus(
            stage=self.stage,
            partition=self.context.partition,
            state=self.state,
            next_offset=self.next_offset,
            restore_remaining=max(0, self._committed_offset - self.next_offset),
            emitted=self._emitted,
            watermark=watermark if MIN_WATERMARK < watermark < MAX_WATERMARK else None,
            snapshots=self.task_store.snapshot_progress,
            lag=self.lag,
            restored_records=self._restored_records,
            restore_seconds=self._restore_seconds,
            processed_records=self._processed_records,
            batch_durations=self._batch_durations.buckets(),
            commit_durations=self._commit_durations.buckets(),
            counts=self._counts,
            store_stats=self.task_store.stats,
        )

    @staticmethod
    @abstractmethod
    def input_topic(topics: Topics) -> str:
        """Return the topic that the stage reads."""

    @staticmethod
    @abstractmethod
    def output_topics(topics: Topics) -> Sequence[str]:
        """Return the topics that the stage writes to."""

    @property
    @abstractmethod
    def _watermark(self) -> int:
        """Event time up to which the task's output is complete (ms)."""

    @property
    @abstractmethod
    def _output_partitions(self) -> Sequence[int]:
        """The partitions that the task writes frames to."""

    @abstractmethod
    def _open_operator(self) -> int:
        """Load the stage's operator from the store and return the offset of its next unread record."""

    @abstractmethod
    def _replay(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        """Update the operator by records whose outputs are committed; `offset` follows the last of them."""

    @abstractmethod
    def _on_restored(self) -> None:
        """Check or complete the operator's state when it has reached the commit."""

    @abstractmethod
    def _process_new(self, records: Sequence[ConsumerRecord], offset: int) -> PendingOutput:
        """Process new records and return their output; `offset` follows the last of them."""

    @abstractmethod
    def _current_counts(self) -> TaskCounts:
        """Return an immutable copy of the operator's counts."""

    @abstractmethod
    def _changes(self) -> dict[bytes, bytes | None]:
        """Return the operator's changes since the last call."""

    def process(self, records: Sequence[ConsumerRecord], group_metadata: Any) -> None:
        """Process records in offset order; those before the commit only restore the state.

        Raises:
            StateError: the log no longer holds the next record, or the state does not fit what was committed.
            KafkaError: the transaction failed, or its outcome is unknown; open the task again.
        """
        replayed = [record for record in records if record.offset < self._committed_offset]
        new = records[len(replayed) :] if replayed else records
        if replayed:
            offset = replayed[-1].offset + 1
            self._dirty = True
            self._replay(replayed, offset)
            self._restored_records += len(replayed)
            self._advance_offset(offset, len(replayed))
            if offset == self._committed_offset:
                self._check_leader_epoch(replayed[-1])
                self._complete_restoration()
        if new:
            self._last_input_at = time.monotonic()
            offset = new[-1].offset + 1
            self.committed_metadata.leader_epoch = new[-1].leader_epoch
            self._transact(lambda: self._process_new(new, offset), offset, group_metadata, len(new))
            self._processed_records += len(new)
            self._batch_durations.observe(time.monotonic() - self._last_input_at)

    def _check_leader_epoch(self, last: ConsumerRecord) -> None:
        """Check that the last committed record is the one that was committed.

        Raises:
            StateError: another leader wrote it: the log was truncated, and written anew up to here.
        """
        epoch = self.committed_metadata.leader_epoch
        if NO_LEADER_EPOCH not in (epoch, last.leader_epoch) and last.leader_epoch != epoch:
            raise StateError(
                f"topic {last.topic} partition {last.partition}: the record at offset {last.offset} is of leader epoch "
                f"{last.leader_epoch}, and the one that was processed was of {epoch}: a replica without all records "
                "has become leader, and others have been written in their place",
                Remedy.START_OVER_LIVE,
            )

    def _transact(
        self, produce_output: Callable[[], PendingOutput], offset: int, group_metadata: Any, records: int = 0
    ) -> None:
        """Produce output and commit it with the offset of the next unread record."""
        self._dirty = True
        self._commit(produce_output(), offset, group_metadata)
        self._counts = self._current_counts()
        self._advance_offset(offset, records)

    def _advance_offset(self, offset: int, records: int) -> None:
        """Move the state's offset, which the commit covers; write the state, or let it lag."""
        self.next_offset = offset
        self._dirty = False
        self._unwritten += 1 + records
        if self._unwritten > _MAX_UNWRITTEN_RECORDS or self._must_write:
            self._write()
        else:
            self.write_if_due()

    def write_if_due(self) -> None:
        """Write the changes if the last write was some time ago."""
        if self._unwritten and not self._dirty and time.monotonic() - self._written_at >= _WRITE_INTERVAL:
            self._write()

    def _write(self) -> None:
        # Before the write: a failed one must not be repeated by `close`, since the changes are drained.
        self._unwritten, self._written_at = 0, time.monotonic()
        self.task_store.write(self._changes(), self.next_offset)

    @property
    def _must_write(self) -> bool:
        """Whether the operator needs its changes in the store before it can continue."""
        return False

    def close(self) -> None:
        """Close store and producer, after writing what is committed."""
        try:
            if self._unwritten and not self._dirty:
                self._write()
        finally:
            self.task_store.close()
            super().close()
