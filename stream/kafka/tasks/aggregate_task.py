"""The `aggregate` stage over one partition of the joined pages."""

import time
from collections.abc import Sequence
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.aggregates import NO_COUNTS, add_counts
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.stateful_task import WATERMARK_FRAME_INTERVAL, StatefulTask
from prectr.stream.kafka.tasks.task_context import EndOfInput, PunctuationContext, TaskContext
from prectr.stream.kafka.tasks.task_metrics import TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskState
from prectr.stream.kafka.tasks.task_store import TaskStore
from prectr.stream.kafka.transactions.producer import PendingOutput, TransactionalProducer
from prectr.stream.ordering.frames import SourceProgress, decode_frame, encode_frames
from prectr.stream.stages import AggregateStage, open_aggregate


class AggregateTask(StatefulTask):
    """Merges the joined pages of one partition in event-time order and adds the aggregates of queries."""

    stage = "aggregate"
    _aggregate: AggregateStage

    def __init__(self, context: TaskContext, producer: TransactionalProducer, store: TaskStore) -> None:
        super().__init__(context, producer, store)
        self._sent_watermark = MIN_WATERMARK
        self._level_counts = NO_COUNTS

    @staticmethod
    def input_topic(topics: Topics) -> str:
        """Return the topic of joined pages."""
        return topics.joined_pages

    @staticmethod
    def output_topics(topics: Topics) -> Sequence[str]:
        """Return the topic of training examples."""
        return [topics.examples]

    @staticmethod
    def has_committed_end(reached_end_offsets: Sequence[int], partition: int, end: EndOfInput) -> bool:
        """Return whether the task has received and emitted everything that came of the events up to `end`."""
        targets = [end.target(source) for source in range(len(end.offsets))]
        return len(reached_end_offsets) == len(targets) and all(
            offset >= target for offset, target in zip(reached_end_offsets, targets, strict=True)
        )

    @property
    def reached_end_offsets(self) -> list[int]:
        """By `join` task, the requested end offset that it has reached, as emitted by this task; -1 before."""
        return self.committed_metadata.reached_end_offsets or [-1] * self.context.config.partitions

    @property
    def _output_partitions(self) -> Sequence[int]:
        return [self.context.partition]

    @property
    def _watermark(self) -> int:
        return self._aggregate.watermark

    def _open_operator(self) -> int:
        config = self.context.config
        self._aggregate = open_aggregate(config, self.task_store.store, config.partitions)
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
            frame = decode_frame(record.value or b"", where, self.context.config.partitions)
            self._aggregate.add_frame(frame, where)
        self._aggregate.next_offset = offset

    def _replay(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        # Nothing is released before the commit is reached: a run that was short of memory had emitted less by then.
        self._ingest(records, offset)

    def _on_restored(self) -> None:
        """Nothing to check: `_emit` compares what was emitted."""

    def _process_new(self, records: Sequence[ConsumerRecord], offset: int) -> PendingOutput:
        self._ingest(records, offset)
        return self._emit()

    def process(self, records: Sequence[ConsumerRecord], group_metadata: Any) -> None:
        """Process frames, then emit the backlog that memory had no room for."""
        super().process(records, group_metadata)
        self._emit_backlog(group_metadata)

    def punctuate(self, context: PunctuationContext) -> None:
        """Without input: emit what a restart found due, and send the latest watermark."""
        self.write_if_due()
        self._emit_backlog(context.group_metadata)
        watermark_due = (
            self._sent_watermark < self._aggregate.watermark
            and time.monotonic() - self._last_frame_at >= WATERMARK_FRAME_INTERVAL
        )
        if watermark_due and self.state is TaskState.RUNNING:
            self._transact(self._emit, self._committed_offset, context.group_metadata)

    def _emit_backlog(self, group_metadata: Any) -> None:
        while self._aggregate.has_backlog and self.state is TaskState.RUNNING:
            self._transact(self._emit, self._committed_offset, group_metadata)

    def _emit(self) -> PendingOutput:
        # After a crash, state that lags emits committed examples again.
        examples, level_counts = self._aggregate.process_encoded(self.committed_metadata.emitted)
        self.committed_metadata.emitted = max(self.committed_metadata.emitted, self._aggregate.emitted)
        self._level_counts = add_counts(self._level_counts, level_counts)
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
            examples,
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
