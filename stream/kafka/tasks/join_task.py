"""Stage `join` over one partition of the events."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import StateError
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.operator import CHUNK_LINES, Join, MicroBatch, RejectedRecord
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.end_offsets import EndOffsets, EndOffsetsSample
from prectr.stream.kafka.tasks.task import WATERMARK_FRAME_INTERVAL, Task, TaskContext
from prectr.stream.kafka.tasks.task_metrics import TaskCounts
from prectr.stream.kafka.transactions.producer import CommittedOffsets, PendingOutput
from prectr.stream.ordering.frames import END_OF_LOG, SourceProgress, encode_frames
from prectr.stream.ordering.watermark import SourceIdleness
from prectr.stream.records import JoinedPage, encode_record

IDLE_AFTER: Final = 5.0
"""Seconds without input after which a task may say that it is silent."""


class JoinTask(Task):
    """Stage `join` over one partition of the events."""

    stage = "join"

    def __init__(
        self,
        context: TaskContext,
        end_offsets: EndOffsets,
        committed_offsets: CommittedOffsets,
        *,
        label: Callable[[str, ResultPage], None],
        idle_timeout: float,
    ) -> None:
        """idle_timeout: seconds of silence after which nobody waits for what the task holds, while others go on."""
        self.input_topic = context.topics.events
        self._label = label
        self._idle_timeout = idle_timeout
        self._idleness: SourceIdleness | None = None
        self._ends_at_idle_start: list[int] | None = None
        self._watermark_unsent = True
        self._dead_letter_counts: Counter[str] = Counter()
        super().__init__(context, end_offsets, committed_offsets)

    @property
    def reached_end_offset(self) -> int:
        """To which offset the task was asked to read and has said that it has; END_OF_LOG once flushed, or -1."""
        return self.committed_metadata.reached_end_offsets[0] if self.committed_metadata.reached_end_offsets else -1

    @property
    def _output_topics(self) -> Sequence[str]:
        return [self.context.topics.joined_pages, self.context.topics.dead_letters]

    @property
    def _output_partition_count(self) -> int:
        return self.context.config.partitions

    @property
    def _watermark(self) -> int:
        return self._join.watermark

    def _open_operator(self) -> int:
        self._join = Join(self.context.config, self.store, self._label)
        return self._join.next_offset

    def _current_counts(self) -> TaskCounts:
        return TaskCounts(
            # The stage goes on counting in its own.
            outcomes=self._join.outcomes + Outcomes(),
            dead_letters=dict(self._dead_letter_counts),
            max_watermark=self._join.watermark,
        )

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._join.drain_changes()

    def _process_chunks(self, records: Sequence[ConsumerRecord]) -> tuple[list[JoinedPage], list[RejectedRecord]]:
        pages: list[JoinedPage] = []
        rejected: list[RejectedRecord] = []
        for start in range(0, len(records), CHUNK_LINES):
            chunk = records[start : start + CHUNK_LINES]
            lines = [record.value or b"" for record in chunk]
            batch = MicroBatch(decode_lines(lines), lines, [record.offset for record in chunk])
            chunk_pages, chunk_rejected = self._join.process(batch, chunk[-1].offset + 1)
            pages += chunk_pages
            rejected += chunk_rejected
        return pages, rejected

    def _replay(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        self._process_chunks(records)

    def _on_restored(self) -> None:
        if self.reached_end_offset == END_OF_LOG:
            # A crash between the commit of the flush and the write of its state leaves pages open here.
            self._join.flush()
            self.store.write(self._changes())
        emitted = self._join.outcomes.pages.emitted
        if emitted != self.committed_metadata.emitted:
            raise StateError(
                f"{self.store.path}: the log up to offset {self._committed_offset} of {self.topic_partition.topic} gives {emitted} "
                f"pages, {self.committed_metadata.emitted} were committed: the state or the log is not what it was. Delete the "
                "folder to rebuild it from the log"
            )

    def _process_new(self, records: Sequence[ConsumerRecord], offset: int) -> PendingOutput:
        if self.reached_end_offset == END_OF_LOG:
            raise StateError(
                f"{self.topic_partition.topic} partition {self.topic_partition.partition}: offset {records[0].offset} came after "
                "--flush had closed every page: nothing can follow. Load further events under another --topic-prefix"
            )
        pages, rejected = self._process_chunks(records)
        output = PendingOutput()
        self._add_dead_letters(output, rejected, {record.offset: record for record in records})
        was_idle, self._idleness, self._ends_at_idle_start = self._idleness is not None, None, None
        self._add_frames(
            output, pages, to_all=was_idle or time.monotonic() - self._last_frame_at >= WATERMARK_FRAME_INTERVAL
        )
        return output

    def punctuate(self, group_metadata: Any, sample: EndOffsetsSample | None, consumer_position: int) -> None:
        """Without input: tell the last watermark, and that there is nothing to say.

        look: how far the logs of all partitions reach, where that was asked just now. position: offset of the next
        record, past what a transaction of others has left.
        """
        self.write_if_due()
        if self.next_offset < self._committed_offset:
            return
        idleness = self._idleness if sample is None else self._check_idleness(sample, consumer_position)
        if idleness == self._idleness and not self._watermark_unsent:
            return
        if time.monotonic() - self._last_frame_at >= WATERMARK_FRAME_INTERVAL:
            self._idleness = idleness
            self._transact(lambda: self._broadcast([]), self._committed_offset, group_metadata)

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last input."""
        return time.monotonic() - self._last_input_at

    def commit_end(self, group_metadata: Any, target: int, ends: Sequence[int]) -> None:
        """The log has been read to the offset `target`, its end: say so. END_OF_LOG: and close every page.

        ends: of all partitions; everybody reads up to there.
        """
        if self.reached_end_offset >= target or self.next_offset < self._committed_offset:
            return
        flush = target == END_OF_LOG
        self.committed_metadata.reached_end_offsets = [target]
        self._idleness = None if flush else SourceIdleness(list(ends), MAX_WATERMARK)
        self._transact(
            lambda: self._broadcast(self._join.flush() if flush else []), self._committed_offset, group_metadata
        )

    def _check_idleness(self, sample: EndOffsetsSample, consumer_position: int) -> SourceIdleness | None:
        """Whether the others may go on without this task, and how far.

        A pause of the whole log is no reason to go on: nobody has anything to say, and what is said first after it
        must find its place. So at first the others only go on while their logs grow, and only up to the next page
        that is open here; after the idle timeout they wait for nothing.
        """
        if self.idle_seconds < IDLE_AFTER:
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
        timed_out = self.idle_seconds >= self._idle_timeout
        if self._join.watermark == MIN_WATERMARK or (grown and timed_out):
            return SourceIdleness(sample.previous, MAX_WATERMARK)
        if grown or timed_out:
            return SourceIdleness(sample.previous, self._join.next_close - 1)
        return None

    def _broadcast(self, pages: Sequence[JoinedPage]) -> PendingOutput:
        output = PendingOutput()
        self._add_frames(output, pages, to_all=True)
        return output

    def _add_frames(self, output: PendingOutput, pages: Sequence[JoinedPage], *, to_all: bool) -> None:
        """Frames to every partition that has records for it; to all of them once a second, for the watermark."""
        partitions = self.context.config.partitions
        records: list[list[bytes]] = [[] for _ in range(partitions)]
        self.committed_metadata.emitted += len(pages)
        for partition, activity in zip(
            partitions_of([activity.query for activity in pages], partitions), pages, strict=True
        ):
            records[partition].append(encode_record(activity))
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
        self._dead_letter_counts.update(letter.reason for letter in rejected)
        for rejected_record in rejected:
            record = records.get(rejected_record.offset)
            headers = [
                ("reason", rejected_record.reason.encode()),
                ("detail", rejected_record.detail.encode()),
                ("topic", self.topic_partition.topic.encode()),
                ("partition", str(self.topic_partition.partition).encode()),
                ("offset", str(rejected_record.offset).encode()),
            ]
            if record is not None:
                key, original_headers = record.key, [(name, value or b"") for name, value in record.headers]
            else:
                # Given up long after it came; the log has its headers, at the offset named here.
                user_id = decode_lines([rejected_record.value])[0].user_id
                key, original_headers = None if user_id is None else user_id.encode(), []
            output.add(self.context.topics.dead_letters, None, rejected_record.value, key, headers + original_headers)
