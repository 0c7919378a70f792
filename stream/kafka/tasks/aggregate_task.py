"""Stage `aggregate` over one partition of the joined pages."""

import time
from collections.abc import Sequence
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.aggregates import NO_COUNTS, add_counts
from prectr.stream.aggregate.operator import Aggregate
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.tasks.task import WATERMARK_FRAME_INTERVAL, Task, TaskContext
from prectr.stream.kafka.tasks.task_metrics import TaskCounts, count_levels_of_pages
from prectr.stream.kafka.transactions.producer import CommittedOffsets, PendingOutput
from prectr.stream.ordering.frames import SourceProgress, decode_frame, encode_frames
from prectr.stream.records import Example, decode_joined_page, encode_record


class AggregateTask(Task):
    """Stage `aggregate` over one partition of the joined pages."""

    stage = "aggregate"

    def __init__(self, context: TaskContext, end_offsets: EndOffsets, committed_offsets: CommittedOffsets) -> None:
        self.input_topic = context.topics.joined_pages
        self._sent_watermark = MIN_WATERMARK
        self._level_counts = NO_COUNTS
        super().__init__(context, end_offsets, committed_offsets)

    @property
    def reached_end_offsets(self) -> list[int]:
        """By `join` task, how far it has been read where an end was asked for, as put out; -1 where not."""
        return self.committed_metadata.reached_end_offsets or [-1] * self.context.config.partitions

    @property
    def _output_topics(self) -> Sequence[str]:
        return [self.context.topics.examples]

    @property
    def _output_partition_count(self) -> int:
        return 1

    @property
    def _watermark(self) -> int:
        return self._aggregate.watermark

    def _open_operator(self) -> int:
        self._aggregate = Aggregate(self.context.config, self.store, self.context.config.partitions)
        return self._aggregate.next_offset

    @property
    def _must_write(self) -> bool:
        return self._aggregate.has_backlog

    def _current_counts(self) -> TaskCounts:
        return TaskCounts(level_counts=self._level_counts, max_watermark=self._aggregate.max_source_watermark)

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._aggregate.drain_changes()

    def _ingest(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        for record in records:
            where = f"{record.topic} partition {record.partition} offset {record.offset}"
            frame = decode_frame(record.value or b"", where)
            self._aggregate.add_frame(frame, [decode_joined_page(activity) for activity in frame.records])
        self._aggregate.next_offset = offset

    def _replay(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        # Nothing is released before the commit is reached: a round that found memory short had put out less.
        self._ingest(records, offset)

    def _on_restored(self) -> None:
        pass

    def _process_new(self, records: Sequence[ConsumerRecord], offset: int) -> PendingOutput:
        self._ingest(records, offset)
        return self._emit()

    def process(self, records: Sequence[ConsumerRecord], group_metadata: Any) -> None:
        """Take frames, then whatever more is due than memory had room for."""
        super().process(records, group_metadata)
        self._emit_backlog(group_metadata)

    def punctuate(self, group_metadata: Any) -> None:
        """Without input: put out what a restart found due, and tell the last watermark."""
        self.write_if_due()
        self._emit_backlog(group_metadata)
        watermark_due = (
            self._sent_watermark < self._aggregate.watermark
            and time.monotonic() - self._last_frame_at >= WATERMARK_FRAME_INTERVAL
        )
        if watermark_due and self.next_offset >= self._committed_offset:
            self._transact(self._emit, self._committed_offset, group_metadata)

    def _emit_backlog(self, group_metadata: Any) -> None:
        while self._aggregate.has_backlog and self.next_offset >= self._committed_offset:
            self._transact(self._emit, self._committed_offset, group_metadata)

    def _emit(self) -> PendingOutput:
        examples = self._drop_committed(self._aggregate.process())
        self._level_counts = add_counts(self._level_counts, count_levels_of_pages(examples))
        output = PendingOutput()
        ends = [self._aggregate.reached_end_offsets.get(source, -1) for source in range(self.context.config.partitions)]
        ends_changed = ends != self.reached_end_offsets and not self._aggregate.has_backlog
        if not examples and not ends_changed and time.monotonic() - self._last_frame_at < WATERMARK_FRAME_INTERVAL:
            return output
        if ends_changed:
            self.committed_metadata.reached_end_offsets = ends
        self._last_frame_at, self._sent_watermark = time.monotonic(), self._aggregate.watermark
        frames = encode_frames(
            self.context.partition,
            self.committed_metadata.sequences[0],
            [encode_record(example) for example in examples],
            SourceProgress(
                watermark=self._aggregate.watermark,
                reached_end_offsets={source: end for source, end in enumerate(self.reached_end_offsets) if end >= 0},
                outcomes=self._aggregate.outcomes,
                late_records=self._aggregate.late_records,
            ),
        )
        self.committed_metadata.sequences[0] += len(frames)
        for frame in frames:
            output.add(self.context.topics.examples, self.context.partition, frame)
        return output

    def _drop_committed(self, examples: list[Example]) -> list[Example]:
        """Those that no commit holds yet: after a crash, state that lags behind puts out again what was committed."""
        already_committed = self.committed_metadata.emitted - (self._aggregate.emitted - len(examples))
        self.committed_metadata.emitted = max(self.committed_metadata.emitted, self._aggregate.emitted)
        return examples[already_committed:] if already_committed > 0 else examples
