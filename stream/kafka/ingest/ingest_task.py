"""The `ingest` task over one partition of a foreign topic: without state, exactly once."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Self

import msgspec
from kafka import TopicPartition

from prectr.state.errors import Remedy, StateError
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, OffsetRange, offset_out_of_range
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.records import rejection_headers
from prectr.stream.kafka.ingest.alignment import InputPosition
from prectr.stream.kafka.ingest.read_ahead import ReadAhead
from prectr.stream.kafka.ingest.record_mapper import MappedRecord
from prectr.stream.kafka.tasks.task import Task
from prectr.stream.kafka.tasks.task_context import EndOfInput, PunctuationContext
from prectr.stream.kafka.tasks.task_status import TaskState
from prectr.stream.kafka.transactions.committed_offsets import NO_LEADER_EPOCH, CommitMetadata, CommittedOffsets
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer

_POSITION_INTERVAL: Final = 0.5
"""Seconds between commits that only tell the other processes how far the input has been read."""
_DETAIL_CHARACTERS: Final = 300


class IngestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a task. Counts start when this process opens it, and are of what is committed.

    Attributes:
        next_offset: offset of the next record to process.
        lag: records of the partition that are not processed; None before the broker reported its end.
        records: records processed.
        emitted: events written since the group's first.
        dead_letters: by reason.
        left_out: by reason, what was left out without a dead letter.
        is_waiting: whether records that have been read wait for other inputs.
        read_time: event time up to which the input has been read (ms); None before the first event.
    """

    topic: str
    partition: int
    next_offset: int
    lag: int | None
    records: int
    pages: int
    clicks: int
    emitted: int
    dead_letters: dict[str, int]
    left_out: dict[str, int]
    is_waiting: bool
    read_time: int | None


class _Counts:
    """What the committed records became."""

    def __init__(self) -> None:
        self.records = self.pages = self.clicks = 0
        self.dead_letters: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def add(self, records: Sequence[MappedRecord]) -> None:
        """Count records."""
        self.records += len(records)
        for record in records:
            clicks = sum(event.is_click for event in record.events)
            self.clicks += clicks
            self.pages += len(record.events) - clicks
            if record.rejection is not None:
                self.dead_letters[record.rejection.reason] += 1
            self.left_out.update(record.left_out)


class IngestTask(Task):
    """Writes the events of one partition to `search-events`, in the order of the partition.

    What cannot be mapped goes to `dead-letters`. Each transaction also holds the offset after its input, so that a
    task that is opened again continues there; nothing else has to be restored.
    """

    stage = "ingest"

    def __init__(
        self, topic_partition: TopicPartition, topic_id: str, producer: TransactionalProducer, topics: Topics
    ) -> None:
        """Create a task in state CREATED; `open` is the way to get one that can process."""
        super().__init__(topic_partition, topic_id, producer)
        self.name = f"{self.stage}-{topic_partition.topic}-{topic_partition.partition}"
        self.read_ahead = ReadAhead()
        self.read_offset = 0
        """Offset after the last record that has been read, past transaction markers."""
        self._topics = topics
        self._partitions = 0
        self._counts = _Counts()
        self._committed_at = time.monotonic()

    @classmethod
    def open(
        cls,
        connection: Connection,
        topics: Topics,
        source: TopicPartition,
        topic_id: str,
        committed_offsets: CommittedOffsets,
        end_offsets: EndOffsets,
    ) -> Self:
        """Fence earlier owners, and return a task that expects the records from `next_offset` on.

        Raises:
            StateError: the commit does not fit the topic or its log.
            KafkaError: another process owns the task, or the broker does not answer.
        """
        producer = cls.open_producer(
            connection,
            f"{committed_offsets.group}-{source.partition}",
            committed_offsets,
            source.partition,
            [topics.events, topics.dead_letters],
        )
        task = cls(source, topic_id, producer, topics)
        try:
            task._initialize(committed_offsets, end_offsets)
        except BaseException:
            task.close()
            raise
        return task

    def _initialize(self, committed_offsets: CommittedOffsets, end_offsets: EndOffsets) -> None:
        committed = committed_offsets.fetch(self.topic_partition.partition)
        # After the commit: read before it, the end could be behind what another process committed meanwhile.
        log_range = end_offsets.fetch_ranges([self.topic_partition])[self.topic_partition]
        if committed is None:
            start = log_range.start
            committed = start, CommitMetadata(self.committed_metadata.topic_id, start_offset=start)
        else:
            self._check_commit(committed, log_range, committed_offsets.group)
        self._committed_offset, self.committed_metadata = committed
        self.next_offset = self.read_offset = self._committed_offset
        self._emitted = self.committed_metadata.emitted
        self._partitions = len(end_offsets.fetch_topic(self._topics.events))
        self.state = TaskState.RUNNING

    def _check_commit(self, committed: tuple[int, CommitMetadata], log_range: OffsetRange, group: str) -> None:
        offset, metadata = committed
        where = f"{self.topic_partition.topic} partition {self.topic_partition.partition}"
        if metadata.topic_id != self.committed_metadata.topic_id:
            raise StateError(
                f"group {group} has committed offset {offset} of an earlier {where}, which was deleted and recreated",
                Remedy.OTHER_GROUP_PREFIX,
            )
        if log_range.end < offset:
            raise StateError(
                f"{where}: group {group} has committed offset {offset}, but the log ends at {log_range.end}: the "
                "broker has lost records",
                Remedy.OTHER_GROUP_PREFIX,
            )
        if offset < log_range.start:
            raise offset_out_of_range(where, offset, log_range.start, Remedy.OTHER_GROUP_PREFIX)

    def status(self) -> IngestStatus:
        """Return the task's progress; thread-safe."""
        counts = self._counts
        return IngestStatus(
            topic=self.topic_partition.topic,
            partition=self.topic_partition.partition,
            next_offset=self.next_offset,
            lag=self.lag,
            records=counts.records,
            pages=counts.pages,
            clicks=counts.clicks,
            emitted=self._emitted,
            dead_letters=dict(counts.dead_letters),
            left_out=dict(counts.left_out),
            is_waiting=self.read_ahead.first_offset is not None,
            read_time=self.read_time,
        )

    @property
    def read_time(self) -> int | None:
        """Event time up to which the input has been read (ms); None before the first event."""
        found = self.read_ahead.time()
        return self.committed_metadata.read_time if found is None else found

    @property
    def position(self) -> InputPosition:
        """How far the input has been processed."""
        first = self.read_ahead.first_offset
        return InputPosition(self.read_offset if first is None else first, self.read_time, first is not None)

    @staticmethod
    def has_committed_end(reached_end_offsets: Sequence[int], partition: int, end: EndOfInput) -> bool:
        """Return whether the partition has been processed up to its end."""
        return bool(reached_end_offsets) and reached_end_offsets[0] >= end.offsets[partition]

    def end_action(self, end: EndOfInput, consumer_position: int, group_metadata: Any) -> Callable[[], None] | None:
        """Return the call that reports the partition's end, once everything before it is processed."""
        number = self.topic_partition.partition
        if self.has_committed_end(self.committed_metadata.reached_end_offsets, number, end):
            return None
        return None if self.has_unread(end, consumer_position) else partial(self._commit_end, end, group_metadata)

    def _commit_end(self, end: EndOfInput, group_metadata: Any) -> None:
        self.committed_metadata.reached_end_offsets = [end.offsets[self.topic_partition.partition]]
        self._commit_position(group_metadata)

    def has_unread(self, end: EndOfInput, consumer_position: int) -> bool:
        """Whether records before `end` are not processed."""
        number: int = self.topic_partition.partition
        return consumer_position < end.offsets[number]

    def process(self, records: Sequence[MappedRecord], group_metadata: Any) -> None:
        """Write the events of records, in offset order."""
        output = PendingOutput()
        for record in records:
            partitions = partitions_of([event.key for event in record.events], self._partitions)
            for event, number in zip(record.events, partitions, strict=True):
                output.add(self._topics.events, number, event.line, event.key.encode())
            if record.rejection is not None:
                self._add_dead_letter(output, record)
        self.committed_metadata.emitted += sum(len(record.events) for record in records)
        self.committed_metadata.read_time = self.read_time
        self.committed_metadata.leader_epoch = records[-1].record.leader_epoch
        self._commit(output, records[-1].record.offset + 1, group_metadata)
        self._counts.add(records)
        self.next_offset, self._committed_at = self._committed_offset, time.monotonic()

    def _add_dead_letter(self, output: PendingOutput, mapped: MappedRecord) -> None:
        assert mapped.rejection is not None
        record, detail = mapped.record, mapped.rejection.detail[:_DETAIL_CHARACTERS]
        headers = rejection_headers(mapped.rejection.reason, detail, self.topic_partition, record.offset)
        own_headers = [(name, value or b"") for name, value in record.headers]
        output.add(self._topics.dead_letters, None, record.value or b"", record.key, headers + own_headers)

    def punctuate(self, context: PunctuationContext) -> None:
        """Without records to process: commit how far the input has been read, for the processes that wait for it."""
        has_news = self.position.offset > self._committed_offset or self.read_time != self.committed_metadata.read_time
        if has_news and time.monotonic() - self._committed_at >= _POSITION_INTERVAL:
            self._commit_position(context.group_metadata)

    def _commit_position(self, group_metadata: Any) -> None:
        self.committed_metadata.read_time = self.read_time
        self.committed_metadata.leader_epoch = NO_LEADER_EPOCH
        self._commit(PendingOutput(), self.position.offset, group_metadata)
        self.next_offset, self._committed_at = self._committed_offset, time.monotonic()
