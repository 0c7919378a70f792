"""The `join` stage over one partition of the events."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import Remedy, StateError
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.ignored_fields import IgnoredFields
from prectr.stream.events.misplaced_events import MisplacedEvents
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.operator import CHUNK_LINES, RejectedRecord
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.end_offsets import EndOffsetsSample, offset_out_of_range
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.records import rejection_headers
from prectr.stream.kafka.tasks.stateful_task import WATERMARK_FRAME_INTERVAL, StatefulTask
from prectr.stream.kafka.tasks.task_context import EndOfInput, PunctuationContext, TaskContext
from prectr.stream.kafka.tasks.task_metrics import TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskState
from prectr.stream.kafka.tasks.task_store import TaskStore
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer
from prectr.stream.ordering.arrivals import Arrivals
from prectr.stream.ordering.frames import END_OF_LOG, SourceProgress, encode_frames
from prectr.stream.ordering.watermark import SourceIdleness
from prectr.stream.records import JoinedPage, encode_record
from prectr.stream.stages import JoinStage, decode_batch, open_join

_IDLE_AFTER: Final = 5.0
"""Seconds without input after which a task may report that it is idle."""


class JoinTask(StatefulTask):
    """Joins clicks to pages in one partition of the events."""

    stage = "join"
    _join: JoinStage
    _ignored_fields: Final = IgnoredFields()
    """Shared by the tasks of a process."""

    def __init__(self, context: TaskContext, producer: TransactionalProducer, store: TaskStore) -> None:
        super().__init__(context, producer, store)
        self._idleness: SourceIdleness | None = None
        self._ends_at_idle_start: list[int] | None = None
        self._watermark_unsent = True
        self._dead_letter_counts: Counter[str] = Counter()
        self._rejection_example = ""
        topic, partitions = self.topic_partition.topic, context.config.partitions
        self._arrivals = Arrivals()
        self._misplaced_events = MisplacedEvents(topic, context.partition, partitions)

    @staticmethod
    def input_topic(topics: Topics) -> str:
        """Return the events' topic."""
        return topics.events

    @staticmethod
    def output_topics(topics: Topics) -> Sequence[str]:
        """Return the topics of joined pages and dead letters."""
        return [topics.joined_pages, topics.dead_letters]

    @staticmethod
    def has_committed_end(reached_end_offsets: Sequence[int], partition: int, end: EndOfInput) -> bool:
        """Return whether the partition itself has been processed up to its end."""
        return bool(reached_end_offsets) and reached_end_offsets[0] >= end.target(partition)

    @property
    def reached_end_offset(self) -> int:
        """The requested end offset that the task has reached and reported; END_OF_LOG after a flush, -1 before."""
        return self.committed_metadata.reached_end_offsets[0] if self.committed_metadata.reached_end_offsets else -1

    @property
    def _output_partitions(self) -> Sequence[int]:
        return range(self.context.config.partitions)

    @property
    def _watermark(self) -> int:
        return self._join.watermark

    def _open_operator(self) -> int:
        self._join = open_join(self.context.config, self.task_store.store, self.context.label)
        return self._join.next_offset

    def _current_counts(self) -> TaskCounts:
        future_events, future_event_lead = self._join.future_events()
        return TaskCounts(
            # A copy: the operator keeps counting in its own.
            outcomes=self._join.outcomes + Outcomes(),
            dead_letters=dict(self._dead_letter_counts),
            rejection_example=self._rejection_example,
            future_events=future_events,
            future_event_lead=future_event_lead,
            misplaced_events=self._misplaced_events.count,
            last_event_at=self._arrivals.newest,
            longest_usual_silence=self._arrivals.longest_usual_silence,
            max_watermark=self._join.watermark,
        )

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._join.drain_changes()

    def process(self, records: Sequence[ConsumerRecord], group_metadata: Any) -> None:
        """Process records as `StatefulTask.process`, unless retention has removed records before them."""
        if records and records[0].offset > self.next_offset:
            # Usually a transaction marker.
            log_start = self.context.end_offsets.fetch_ranges([self.topic_partition])[self.topic_partition].start
            if log_start > self.next_offset:
                where = f"{self.topic_partition.topic} partition {self.topic_partition.partition}"
                raise offset_out_of_range(where, self.next_offset, log_start, Remedy.NEWER_STATE_DIR)
        super().process(records, group_metadata)

    def _process_chunks(self, records: Sequence[ConsumerRecord]) -> tuple[list[JoinedPage], list[RejectedRecord]]:
        pages: list[JoinedPage] = []
        rejected: list[RejectedRecord] = []
        for start in range(0, len(records), CHUNK_LINES):
            chunk = records[start : start + CHUNK_LINES]
            batch = decode_batch([record.value or b"" for record in chunk], [record.offset for record in chunk])
            self._arrivals.observe(chunk[0].timestamp, chunk[-1].timestamp, len(chunk))
            self._misplaced_events.look_at(batch)
            chunk_pages, chunk_rejected = self._join.process(batch, chunk[-1].offset + 1)
            pages += chunk_pages
            rejected += chunk_rejected
        return pages, rejected

    def _replay(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        self._process_chunks(records)

    def _on_restored(self) -> None:
        if self.reached_end_offset == END_OF_LOG:
            # After a crash between the commit of the flush and the write of its state, pages are pending here.
            self._join.flush()
            self.task_store.store.write(self._changes())
        emitted = self._join.outcomes.pages.emitted
        if emitted != self.committed_metadata.emitted:
            raise StateError(
                f"{self.task_store.store.path}: the log up to offset {self._committed_offset} of "
                f"{self.topic_partition.topic} gives {emitted} pages, {self.committed_metadata.emitted} were "
                "committed: the state or the log has changed. Delete the folder to rebuild it from the log"
            )

    def _process_new(self, records: Sequence[ConsumerRecord], offset: int) -> PendingOutput:
        if self.reached_end_offset == END_OF_LOG:
            raise StateError(
                f"{self.topic_partition.topic} partition {self.topic_partition.partition}: the event at offset "
                f"{records[0].offset} came after the flush that closed every page: nothing can follow it",
                Remedy.OTHER_TOPIC_PREFIX,
            )
        self._ignored_fields.look_at([record.value or b"" for record in records])
        pages, rejected = self._process_chunks(records)
        output = PendingOutput()
        self._add_dead_letters(output, rejected, {record.offset: record for record in records})
        was_idle, self._idleness, self._ends_at_idle_start = self._idleness is not None, None, None
        self._add_frames(
            output, pages, to_all=was_idle or time.monotonic() - self._last_frame_at >= WATERMARK_FRAME_INTERVAL
        )
        return output

    def punctuate(self, context: PunctuationContext) -> None:
        """Without input: send the latest watermark and, once the partition is idle, its idleness."""
        self.write_if_due()
        if self.state is not TaskState.RUNNING:
            return
        idleness = (
            self._idleness
            if context.sample is None
            else self._check_idleness(context.sample, context.consumer_position)
        )
        if idleness == self._idleness and not self._watermark_unsent:
            return
        if time.monotonic() - self._last_frame_at >= WATERMARK_FRAME_INTERVAL:
            self._idleness = idleness
            self._transact(lambda: self._broadcast([]), self._committed_offset, context.group_metadata)

    @property
    def needs_end_offsets(self) -> bool:
        """Whether the partition had no input for some seconds, so that it may be idle."""
        return self._idle_seconds >= _IDLE_AFTER

    @property
    def _idle_seconds(self) -> float:
        return time.monotonic() - self._last_input_at

    def end_action(self, end: EndOfInput, consumer_position: int, group_metadata: Any) -> Callable[[], None] | None:
        """Return the call that reports the partition's end, once the partition has been read up to it."""
        partition = self.context.partition
        if self.reached_end_offset >= end.target(partition) or consumer_position < end.offsets[partition]:
            return None
        return partial(self._commit_end, end, group_metadata)

    def _commit_end(self, end: EndOfInput, group_metadata: Any) -> None:
        """Commit and report the end; for a flush, close every pending page first."""
        if self.state is not TaskState.RUNNING:
            return
        self.committed_metadata.reached_end_offsets = [end.target(self.context.partition)]
        self._idleness = None if end.flush else SourceIdleness(list(end.offsets), MAX_WATERMARK)
        self._transact(
            lambda: self._broadcast(self._join.flush() if end.flush else []), self._committed_offset, group_metadata
        )

    def has_unread(self, end: EndOfInput, consumer_position: int) -> bool:
        """Whether the partition has not been read up to its end: events after a flush are still to be rejected."""
        return consumer_position < end.offsets[self.context.partition]

    def _check_idleness(self, sample: EndOffsetsSample, consumer_position: int) -> SourceIdleness | None:
        """Return whether, and how far, the merged watermark may advance without this partition.

        Flink's `withIdleness` excludes a source after a timeout alone: the watermark may then pass what the source
        still buffers, and the first records that it reads afterwards may be late. Here idleness is limited:

        - A pause of the whole log is not idleness before `idle_timeout`: the partition is reported as idle only while
          other partitions grow, or after the timeout.
        - The watermark may advance at most to the next close time that is pending here (`hold_until`); it is
          unlimited only if other partitions grow and the timeout has passed, or if nothing was ever read here.
        - It covers only what the other partitions held at the previous sample (`observed_offsets`), when this one was
          known to be read to its end. For what they read beyond that, the merge waits for this partition again.
        """
        if self._idle_seconds < _IDLE_AFTER:
            return None
        number = self.context.partition
        if consumer_position < sample.current[number]:
            self._last_input_at, self._ends_at_idle_start = time.monotonic(), None
            return None
        if self._ends_at_idle_start is None:
            self._ends_at_idle_start = sample.current
        grown = any(
            previous > at_idle_start
            for other, (previous, at_idle_start) in enumerate(
                zip(sample.previous, self._ends_at_idle_start, strict=True)
            )
            if other != number
        )
        timed_out = self._idle_seconds >= self.context.idle_timeout
        never_read = self._join.watermark == MIN_WATERMARK and self._join.next_close == MAX_WATERMARK
        if never_read or (grown and timed_out):
            return SourceIdleness(sample.previous, MAX_WATERMARK)
        if grown or timed_out:
            return SourceIdleness(sample.previous, self._join.next_close - 1)
        return None

    def _broadcast(self, pages: Sequence[JoinedPage]) -> PendingOutput:
        output = PendingOutput()
        self._add_frames(output, pages, to_all=True)
        return output

    def _add_frames(self, output: PendingOutput, pages: Sequence[JoinedPage], *, to_all: bool) -> None:
        """Add a frame for every partition that has records; for all partitions if the watermark is due."""
        partitions = self.context.config.partitions
        records: list[list[bytes]] = [[] for _ in range(partitions)]
        self.committed_metadata.emitted += len(pages)
        for partition, page in zip(partitions_of([page.query for page in pages], partitions), pages, strict=True):
            records[partition].append(encode_record(page))
        self._watermark_unsent = not to_all
        if to_all:
            self._last_frame_at = time.monotonic()
        source, ended = self.context.partition, self.reached_end_offset
        progress = SourceProgress(
            watermark=MAX_WATERMARK if ended == END_OF_LOG else self._join.watermark,
            read_offset=self._join.next_offset,
            idleness=self._idleness,
            reached_end_offsets={source: ended} if ended >= 0 else {},
            outcomes={source: self._join.outcomes},
        )
        for partition, encoded in enumerate(records):
            if not encoded and not to_all:
                continue
            frames = encode_frames(
                source,
                self.committed_metadata.sequences[partition],
                encoded,
                progress,
            )
            self.committed_metadata.sequences[partition] += len(frames)
            for frame in frames:
                output.add(self.context.topics.joined_pages, partition, frame)

    def _add_dead_letters(
        self, output: PendingOutput, rejected: Sequence[RejectedRecord], records: dict[int, ConsumerRecord]
    ) -> None:
        self._dead_letter_counts.update(rejected_record.reason for rejected_record in rejected)
        if rejected:
            place = f"{self.topic_partition.topic} partition {self.topic_partition.partition} offset"
            self._rejection_example = f"{place} {rejected[0].offset}: {rejected[0].reason}"
        for rejected_record in rejected:
            record = records.get(rejected_record.offset)
            headers = rejection_headers(
                rejected_record.reason, rejected_record.detail, self.topic_partition, rejected_record.offset
            )
            if record is not None:
                key, original_headers = record.key, [(name, value or b"") for name, value in record.headers]
            else:
                # A future event, rejected long after it was read; its headers are in the log, at the offset given.
                user_id = decode_lines([rejected_record.value])[0].user_id
                key, original_headers = None if user_id is None else user_id.encode(), []
            output.add(self.context.topics.dead_letters, None, rejected_record.value, key, headers + original_headers)
