"""Reads `training-examples` in the one order, from all of its partitions."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from prectr.state.errors import StateError
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.tasks.task import offset_out_of_range_message
from prectr.stream.ordering.frames import END_OF_LOG, decode_frame
from prectr.stream.ordering.ordered_merge import OrderedMerge
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.ordering.watermark import MergedWatermark
from prectr.stream.records import Example, decode_example

_POLL_MS: Final = 200
_END_OFFSETS_TIMEOUT_MS: Final = 2_000
_MAX_BATCH_EXAMPLES: Final = 1_024
_MAX_BUFFERED_RECORDS: Final = 4_096
"""Records held of a partition beyond which it is not read on, unless it is what the others wait for."""


class ReaderState(msgspec.Struct):
    """Where a reader stands: everything that it needs to go on.

    offsets: of the next unread record of each partition. sequences: of the next frame. held: records that wait for
    the others. ends: by partition, how far each `join` task has been read where an end was asked for.
    outcomes: by `join` task. behind: by partition, records that came behind the line of its `aggregate` task.
    due: examples in the one order that have not been handed on yet, before all that is held.
    """

    offsets: list[int]
    sequences: list[int]
    merged_watermark: MergedWatermark
    buffered: list[list[Example]]
    reached_end_offsets: list[dict[int, int]] = []
    outcomes: dict[int, Outcomes] = {}
    late_records: list[int] = []
    released: list[Example] = []


class ExampleReader:
    """Merges the partitions of `training-examples`; leaves those that are ahead, never the one that holds the line."""

    def __init__(self, connection: Connection, topics: Topics, state: ReaderState | None = None) -> None:
        """Begin at the beginning, or go on from `state`.

        Raises:
            PrectrError: no broker, or no topic.
            StateError: the log no longer holds what comes next.
        """
        self._topic = topics.examples
        count = partition_count(connection, self._topic)
        self._partitions = [TopicPartition(self._topic, number) for number in range(count)]
        self._merge: OrderedMerge[Example] = OrderedMerge(
            count, merged_watermark=state.merged_watermark if state else None
        )
        self._offsets = list(state.offsets) if state else [0] * count
        self._sequences = list(state.sequences) if state else [0] * count
        self._reached_end_offsets: list[dict[int, int]] = (
            state.reached_end_offsets if state else [{} for _ in range(count)]
        )
        self._stop_offsets: list[int] | None = None
        self._late_records = list(state.late_records) if state else [0] * count
        self._released = list(state.released) if state else []
        self.outcomes = dict(state.outcomes) if state else {}
        if state is not None:
            for source, records in enumerate(state.buffered):
                self._merge.add(source, records, MIN_WATERMARK)
        self._paused: dict[TopicPartition, int] = {}
        """Where partitions that are not read for now go on."""
        self._known_end_offsets: dict[TopicPartition, int] = {}
        """How far partitions reached when the broker last told, which the client forgets with the assignment."""
        self._consumer = connection.consumer(group_id=None, max_poll_records=64)
        try:
            self._seek()
        except BaseException:
            self._consumer.close()
            raise

    def _seek(self) -> None:
        self._consumer.assign(self._partitions)
        start_offsets = self._consumer.beginning_offsets(self._partitions)
        end_offsets = self._consumer.end_offsets(self._partitions)
        for partition, offset in zip(self._partitions, self._offsets, strict=True):
            where = f"{self._topic} partition {partition.partition}"
            if offset < start_offsets[partition]:
                raise StateError(offset_out_of_range_message(where, offset, start_offsets[partition]))
            if offset > end_offsets[partition]:
                raise StateError(
                    f"{where}: offset {offset} is next, but the log ends at {end_offsets[partition]}: the topic was made "
                    "anew, or the broker has lost records. Begin again with another --run-dir"
                )
            self._consumer.seek(partition, offset)

    def ended(self, ends: Sequence[int]) -> bool:
        """Whether all that came of the events up to `ends`, by partition, has been read.

        The stages must have been told to end there or later.
        """
        return all(
            reached.get(source, -1) >= end for reached in self._reached_end_offsets for source, end in enumerate(ends)
        )

    def stop_at(self, ends: Sequence[int]) -> None:
        """Take nothing at or behind these offsets, by partition; `at_end` tells when they are reached."""
        self._stop_offsets = list(ends)

    @property
    def at_end(self) -> bool:
        """Whether the offsets given to `stop_at` are reached, transactions that were open then ended."""
        assert self._stop_offsets is not None
        return all(self._position(each) >= end for each, end in zip(self._partitions, self._stop_offsets, strict=True))

    def waiting_reason(self) -> str:
        """What a reader to whom nothing comes is waiting for, in words; asks the broker."""
        try:
            ends = self._consumer.end_offsets(self._partitions, timeout_ms=_END_OFFSETS_TIMEOUT_MS)
        except KafkaError:
            return "Kafka does not answer"
        # Positions, not offsets of frames: behind the last frame stands the mark of its commit.
        if any(ends[each] > self._position(each) for each in self._partitions):
            return "more is committed than has come so far"
        return "the stages have committed nothing more"

    def lag(self) -> list[int | None]:
        """By partition, records that have been written and not read yet, as of the last answer; None before one."""
        lags: list[int | None] = []
        for partition in self._partitions:
            end = self._end_offset(partition)
            lags.append(None if end is None else max(0, end - self._position(partition)))
        return lags

    def _position(self, partition: TopicPartition) -> int:
        """Offset of the next record to come, past the marks of transactions."""
        paused_at = self._paused.get(partition)
        return int(self._consumer.position(partition)) if paused_at is None else paused_at

    def _end_offset(self, partition: TopicPartition) -> int | None:
        """How far a partition reaches, as of the last answer."""
        high_watermark = None if partition in self._paused else self._consumer.highwater(partition)
        if high_watermark is not None:
            self._known_end_offsets[partition] = high_watermark
        return self._known_end_offsets.get(partition)

    def release_all(self) -> ReleasedBatch:
        """Every source counts as past everything: what is still held, in order."""
        for source in range(len(self._partitions)):
            self._merge.end_source(source)
        examples, watermark = self._merge.release()
        released, self._released = self._released, []
        return ReleasedBatch(released + examples, watermark)

    @property
    def late_records(self) -> int:
        """Records that came behind the line, of the stages or of this reader."""
        return self._merge.merged_watermark.late_records + sum(self._late_records)

    def poll(self) -> ReleasedBatch:
        """The next examples that are due, some at a time; none where nothing new has come."""
        if len(self._released) > _MAX_BATCH_EXAMPLES:
            return self._next_batch()
        polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=0 if self._released else _POLL_MS)
        for partition, records in polled.items():
            stop_offset = self._stop_offsets[partition.partition] if self._stop_offsets is not None else END_OF_LOG
            for record in records:
                if record.offset < stop_offset:
                    self._add_frame(partition.partition, record.value or b"", record.offset)
        self._released += self._merge.release()[0]
        self._pause_ahead()
        return self._next_batch()

    def _next_batch(self) -> ReleasedBatch:
        """The first of what is due: a step is what lies between two looks at a stop, a checkpoint or the clock."""
        batch, self._released = self._released[:_MAX_BATCH_EXAMPLES], self._released[_MAX_BATCH_EXAMPLES:]
        return ReleasedBatch(batch, self._released[0].closes_at - 1 if self._released else self._merge.watermark)

    def state(self) -> ReaderState:
        """Where the reader stands now."""
        return ReaderState(
            list(self._offsets),
            list(self._sequences),
            self._merge.merged_watermark,
            self._merge.buffered_by_source(),
            self._reached_end_offsets,
            self.outcomes,
            list(self._late_records),
            list(self._released),
        )

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _add_frame(self, source: int, value: bytes, offset: int) -> None:
        where = f"{self._topic} partition {source} offset {offset}"
        frame = decode_frame(value, where)
        if frame.sequence != self._sequences[source]:
            raise StateError(
                f"{where}: frame {frame.sequence} came where {self._sequences[source]} was due: the topic has lost or "
                "repeated records, or another system writes to it; begin again under a new --topic-prefix"
            )
        self._sequences[source] += 1
        self._offsets[source] = offset + 1
        records: Sequence[Example] = [decode_example(record) for record in frame.records]
        watermark = frame.watermark if frame.is_last_part else self._merge.merged_watermark.source_watermarks[source]
        self._merge.add(source, records, watermark)
        for task, outcomes in frame.outcomes.items():
            # Each partition tells what it has heard so far; the one that has heard most is right.
            known = self.outcomes.get(task)
            if known is None or outcomes.records >= known.records:
                self.outcomes[task] = outcomes
        if frame.is_last_part:
            self._reached_end_offsets[source] |= frame.reached_end_offsets
            self._late_records[source] = frame.late_records

    def _pause_ahead(self) -> None:
        """Leave the partitions that are ahead, and take up again those that are no longer; one always holds the line.

        By assignment: a partition that was paused in the middle of what had been fetched may never be read again
        (kafka-python 3.0.12: its fetcher forgets it while another, whose records have all been handed out, is in line).
        """
        merged_watermark = self._merge.merged_watermark
        ahead = {
            partition
            for partition, records, watermark in zip(
                self._partitions, self._merge.buffered_by_source(), merged_watermark.source_watermarks, strict=True
            )
            if len(records) > _MAX_BUFFERED_RECORDS and watermark > merged_watermark.watermark
        }
        if ahead == self._paused.keys():
            return
        resumed = self._paused.keys() - ahead
        for partition in ahead:
            self._end_offset(partition)
        paused = {partition: self._position(partition) for partition in ahead}
        self._consumer.assign([partition for partition in self._partitions if partition not in ahead])
        for partition in resumed:
            self._consumer.seek(partition, self._paused[partition])
        self._paused = paused
