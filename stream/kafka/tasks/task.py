"""A task of a stage on Kafka: state and log brought together, then exactly once from there on."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import StateError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.state.identity import IDENTITY_KEY, StoreIdentity, decode_identity, encode_identity
from prectr.state.snapshot_storage import SnapshotStorage
from prectr.state.snapshots import TaskSnapshots
from prectr.state.snapshotter import SNAPSHOT_INTERVAL, Snapshotter
from prectr.state.store import Store, StoreOptions, StoreStats
from prectr.stream.config import PipelineConfig
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, OffsetRange
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.task_metrics import DurationHistogram, TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskStatus
from prectr.stream.kafka.transactions.hanging import recover_and_open
from prectr.stream.kafka.transactions.producer import CommitMetadata, CommittedOffsets, PendingOutput

WATERMARK_FRAME_INTERVAL: Final = 1.0
"""Seconds between frames that carry only a watermark."""
_COMMIT_VISIBLE_TIMEOUT: Final = 10.0
_RETRY_BACKOFF: Final = 0.2
_TRANSACTION_TIMEOUT_MS: Final = 60_000
_REQUEST_TIMEOUT_MS: Final = 10_000
_MAX_BLOCK_MS: Final = 20_000
_MAX_UNWRITTEN_RECORDS: Final = 32_768
_WRITE_INTERVAL: Final = 2.0
"""How far the state may lag behind the commit: what changes again within that is written once, and a restart takes
that much again in silence."""
_STORE_SAMPLE_INTERVAL: Final = 10.0
"""RocksDB takes half a millisecond to tell how it does."""
_STORE_OPTIONS: Final = StoreOptions(statistics=True)
_log = logging.getLogger(__name__)


class SnapshotSettings(msgspec.Struct, frozen=True):
    """Where snapshots of the state go, and every how many seconds."""

    storage: SnapshotStorage
    interval: float = SNAPSHOT_INTERVAL


class TaskContext(msgspec.Struct, frozen=True):
    """Where a task stands: everything that it needs to be opened. topic_id: of the topic that it reads."""

    connection: Connection
    topics: Topics
    group: str
    partition: int
    config: PipelineConfig
    state_dir: Path
    cluster: str
    topic_id: str
    snapshots: SnapshotSettings | None


class Task(ABC):
    """Reads one partition, in transactions. State may lag behind the commit and never runs ahead of it.

    Opened, it first takes the records between its store and the commit again, in silence: their outputs are
    committed already. What the stage did in a transaction that failed is never written: the task is closed and opened
    anew.
    """

    stage: str
    input_topic: str

    def __init__(self, context: TaskContext, end_offsets: EndOffsets, committed_offsets: CommittedOffsets) -> None:
        """Open the store and fence earlier owners.

        The task is to be given the records from `next_offset` on.

        Raises:
            StateError: the store belongs to something else, or does not fit the commit or the log.
            KafkaError: the task has gone to another process, or the broker does not answer.
        """
        self.context = context
        self.lag: int | None = None
        """Records of the partition that have not been taken yet; told by whoever reads it."""
        self._opened_at = time.monotonic()
        self._restore_seconds: float | None = None
        self._processed_records = self._restored_records = 0
        self._batch_durations, self._commit_durations = DurationHistogram(), DurationHistogram()
        self._counts: TaskCounts | None = None
        self._store_stats: StoreStats | None = None
        self._store_sampled_at = float("-inf")
        self._emitted = 0
        self.topic_partition = TopicPartition(self.input_topic, context.partition)
        self.name = f"{self.stage}-{context.partition}"
        self.log = logging.LoggerAdapter(_log, {"stage": self.stage, "partition": context.partition})
        """What is logged of the task names its stage and partition."""
        self._identity = StoreIdentity(
            context.cluster,
            self.input_topic,
            context.topic_id,
            self.stage,
            context.partition,
            msgspec.to_builtins(context.config),
        )
        transactional_id = f"{context.group}-{self.name}"
        producer = context.connection.producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            max_block_ms=_MAX_BLOCK_MS,
        )
        self._producer = recover_and_open(
            transactional_id, committed_offsets, context.partition, producer, self._output_topics
        )
        self._snapshotter: Snapshotter | None = None
        self._unwritten = 0
        self._written_at = time.monotonic()
        self._dirty = False
        try:
            self.store = Store(context.state_dir / self.name, _STORE_OPTIONS)
        except BaseException:
            self._producer.close()
            raise
        try:
            self._check_identity()
            self.next_offset = self._open_operator()
            if context.snapshots is not None:
                self._init_snapshots(context.snapshots)
            self._initialize_offsets(end_offsets, committed_offsets)
            self._sample_store()
        except BaseException:
            self.close()
            raise
        self._last_input_at = time.monotonic()
        self._last_frame_at = 0.0

    def _init_snapshots(self, settings: SnapshotSettings) -> None:
        """Put the newest snapshot in the place of the store, where it is further on; take snapshots from now on."""
        snapshots = TaskSnapshots(settings.storage, self.name, self._identity)
        newest = snapshots.newest()
        if newest is not None and newest.offset > self.next_offset:
            self.store.close()
            try:
                restored = snapshots.restore(self.store.path, newer_than=self.next_offset)
            finally:
                self.store = Store(self.store.path, _STORE_OPTIONS)
            if restored is not None:
                self.log.info("%s: restored from the snapshot at offset %d", self.name, restored)
            self._check_identity()
            self.next_offset = self._open_operator()
        self._snapshotter = Snapshotter(snapshots, self.store, settings.interval)

    def _initialize_offsets(self, end_offsets: EndOffsets, committed_offsets: CommittedOffsets) -> None:
        """Bring store, commit and log together."""
        committed = committed_offsets.fetch(self.context.partition)
        deadline = time.monotonic() + _COMMIT_VISIBLE_TIMEOUT
        while committed is not None and committed[0] < self.next_offset and time.monotonic() < deadline:
            # A broker that has just come back may have answered a commit that it shows only a moment later.
            time.sleep(_RETRY_BACKOFF)
            committed = committed_offsets.fetch(self.context.partition)
        # Only now: a process that slept between the two would find the log shorter than what others have committed.
        log_range = end_offsets.fetch_ranges([self.topic_partition])[self.topic_partition]
        self._check_commit(committed, log_range)
        self.committed_metadata = (
            committed[1] if committed else CommitMetadata(self.context.topic_id, start_offset=log_range.start)
        )
        self._committed_offset: int = committed[0] if committed else log_range.start
        self.next_offset = max(self.next_offset, self.committed_metadata.start_offset)
        if not self.committed_metadata.sequences:
            self.committed_metadata.sequences = [0] * self._output_partition_count
        self._emitted = self.committed_metadata.emitted
        if self.next_offset == self._committed_offset:
            self._complete_restoration()

    def _complete_restoration(self) -> None:
        """The state has reached the commit: from here on its counts are those of what is committed."""
        self._on_restored()
        self._restore_seconds = time.monotonic() - self._opened_at
        if self._restored_records:
            self.log.info(
                "%s: has taken %d records again in %.1f s, and goes on from the commit at offset %d",
                self.name,
                self._restored_records,
                self._restore_seconds,
                self._committed_offset,
            )
        self._counts = self._current_counts()

    def status(self) -> TaskStatus:
        """How the task does; from any thread."""
        watermark = self._watermark
        return TaskStatus(
            stage=self.stage,
            partition=self.context.partition,
            next_offset=self.next_offset,
            restore_remaining=max(0, self._committed_offset - self.next_offset),
            emitted=self._emitted,
            watermark=watermark if MIN_WATERMARK < watermark < MAX_WATERMARK else None,
            snapshots=None if self._snapshotter is None else self._snapshotter.progress,
            lag=self.lag,
            restored_records=self._restored_records,
            restore_seconds=self._restore_seconds,
            processed_records=self._processed_records,
            batch_durations=self._batch_durations.buckets(),
            commit_durations=self._commit_durations.buckets(),
            counts=self._counts,
            store_stats=self._store_stats,
        )

    @property
    @abstractmethod
    def _watermark(self) -> int:
        """Event time up to which the task is done (ms)."""

    @abstractmethod
    def _open_operator(self) -> int:
        """Make the stage over the store; returns the offset of its next unread record."""

    @property
    @abstractmethod
    def _output_topics(self) -> Sequence[str]:
        """The topics that the task writes to."""

    @property
    @abstractmethod
    def _output_partition_count(self) -> int:
        """How many partitions the task writes frames to."""

    @abstractmethod
    def _replay(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        """Let the stage take records whose outputs are committed. offset: of the record after the last."""

    @abstractmethod
    def _on_restored(self) -> None:
        """The state has reached the commit."""

    @abstractmethod
    def _process_new(self, records: Sequence[ConsumerRecord], offset: int) -> PendingOutput:
        """Let the stage take new records, and gather what it puts out. offset: of the record after the last."""

    @abstractmethod
    def _current_counts(self) -> TaskCounts:
        """What the stage has counted so far; nothing in it may change afterwards."""

    @abstractmethod
    def _changes(self) -> dict[bytes, bytes | None]:
        """The stage's changes since the last call."""

    def process(self, records: Sequence[ConsumerRecord], group_metadata: Any) -> None:
        """Take records in offset order; those that were committed before, in silence.

        Raises:
            StateError: the log no longer holds what comes next, or the state does not fit what was committed.
            KafkaError: the transaction failed or its outcome is unknown; open the task anew.
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
                self._complete_restoration()
        if new:
            self._last_input_at = time.monotonic()
            offset = new[-1].offset + 1
            self._transact(lambda: self._process_new(new, offset), offset, group_metadata, len(new))
            self._processed_records += len(new)
            self._batch_durations.observe(time.monotonic() - self._last_input_at)

    def _transact(
        self, produce_output: Callable[[], PendingOutput], offset: int, group_metadata: Any, records: int = 0
    ) -> None:
        """Let the stage act, and commit what it puts out with the offset of the next unread record."""
        self._dirty = True
        output = produce_output()
        commit_started = time.monotonic()
        self._producer.commit(output, offset, self.committed_metadata, group_metadata)
        failpoint(Failpoint.AFTER_COMMIT)
        self._commit_durations.observe(time.monotonic() - commit_started)
        self._committed_offset, self._emitted = offset, self.committed_metadata.emitted
        self._counts = self._current_counts()
        self._advance_offset(offset, records)

    def _advance_offset(self, offset: int, records: int) -> None:
        """The state is no further than the commit: write it, or let it lag a little."""
        self.next_offset = offset
        self._dirty = False
        self._unwritten += 1 + records
        if self._unwritten > _MAX_UNWRITTEN_RECORDS or self._must_write:
            self._write()
        else:
            self.write_if_due()

    def write_if_due(self) -> None:
        """Write what has changed, where that was some time ago."""
        if self._unwritten and not self._dirty and time.monotonic() - self._written_at >= _WRITE_INTERVAL:
            self._write()

    def _write(self) -> None:
        self.store.write(self._changes())
        self._unwritten = 0
        self._written_at = time.monotonic()
        failpoint(Failpoint.AFTER_WRITE)
        if self._written_at - self._store_sampled_at >= _STORE_SAMPLE_INTERVAL:
            self._sample_store()
        if self._snapshotter is not None and self._snapshotter.is_due():
            self._snapshotter.start(self.next_offset)

    def _sample_store(self) -> None:
        self._store_stats = self.store.stats()
        self._store_sampled_at = time.monotonic()

    @property
    def _must_write(self) -> bool:
        """Whether the stage can only go on once its changes are in the store."""
        return False

    def close(self) -> None:
        """Close store and producer; a snapshot under way is given a moment to end."""
        try:
            if self._unwritten and not self._dirty:
                self._write()
        finally:
            if self._snapshotter is not None:
                self._snapshotter.close()
            self.store.close()
            self._producer.close()

    def _check_commit(self, committed: tuple[int, CommitMetadata] | None, log_range: OffsetRange) -> None:
        path, topic, group = (
            self.store.path,
            f"{self.topic_partition.topic} partition {self.context.partition}",
            self.context.group,
        )
        if committed is None:
            if self.next_offset > 0:
                raise StateError(
                    f"{path}: the state stands at offset {self.next_offset} of {topic}, but group {group} has committed "
                    "nothing: its offsets have expired, or it is not the group that wrote the state. Use that group, "
                    "or begin again: other --topic-prefix, --group-prefix and --state-dir, and load the log anew"
                )
            return
        offset, metadata = committed
        if metadata.topic_id != self.context.topic_id:
            raise StateError(
                f"group {group} has committed offset {offset} of an earlier {topic}, which was deleted and made anew: "
                "use another --group-prefix and --state-dir"
            )
        if self.next_offset > offset:
            raise StateError(
                f"{path}: the state stands at offset {self.next_offset} of {topic}, ahead of the commit of group {group} "
                f"at {offset}: another group wrote it. Use that group, or another --state-dir"
            )
        if log_range.end < offset:
            raise StateError(
                f"{topic}: group {group} has committed offset {offset}, but the log ends at {log_range.end}: the broker has "
                "lost records. Begin again with other --topic-prefix, --group-prefix and --state-dir, and load the "
                "log anew"
            )
        if max(self.next_offset, metadata.start_offset) < log_range.start:
            raise StateError(
                offset_out_of_range_message(topic, max(self.next_offset, metadata.start_offset), log_range.start)
            )

    def _check_identity(self) -> None:
        ours = self._identity
        (stored,) = self.store.get_many([IDENTITY_KEY])
        if stored is None:
            self.store.write({IDENTITY_KEY: encode_identity(ours)})
            return
        try:
            theirs = decode_identity(stored)
        except msgspec.MsgspecError as error:
            raise StateError(
                f"{self.store.path}: the state is of another version of this program: delete the folder to rebuild it "
                "from the log"
            ) from error
        if theirs != ours:
            raise StateError(
                f"{self.store.path}: the state is of another system: {ours.diff(theirs)}. "
                "Use another --state-dir, or the settings that it was made with"
            )


def offset_out_of_range_message(topic: str, next_offset: int, log_start: int) -> str:
    """What to say where the log no longer holds the next record."""
    return (
        f"{topic}: offset {next_offset} is next, but the log begins at {log_start}: retention has removed what was never read "
        "or is needed to rebuild the state. Nothing is skipped: bring back a --state-dir that is further on, or begin "
        "again with other --topic-prefix, --group-prefix and --state-dir, and load the log anew"
    )
