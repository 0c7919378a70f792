"""Reads `training-examples` from all of its partitions, in total event-time order."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

from prectr.state.errors import Remedy, StateError
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.client_internals import next_offset
from prectr.stream.kafka.client.end_offsets import offset_out_of_range
from prectr.stream.kafka.client.topic_changes import TopicWatch
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.ordering.frame_records import examples_of
from prectr.stream.ordering.frames import END_OF_LOG, damaged_frame, decode_frame
from prectr.stream.ordering.ordered_merge import OrderedMerge
from prectr.stream.ordering.released_batch import ReleasedBatch
from prectr.stream.ordering.watermark import MergedWatermark
from prectr.stream.records import Example

_POLL_MS: Final = 200
_END_OFFSETS_TIMEOUT_MS: Final = 2_000
_MAX_BATCH_EXAMPLES: Final = 1_024
_MAX_BUFFERED_RECORDS: Final = 4_096
"""Buffered records of a partition beyond which it is paused, unless the others wait for it."""


class ReaderState(msgspec.Struct):
    """Everything that a reader needs to resume.

    Attributes:
        offsets: by partition, offset of the next unread record.
        sequences: by partition, sequence number of the next frame.
        buffered: by partition, records that wait for other partitions.
        reached_end_offsets: by partition, the requested end offset that each `join` task has reached.
        outcomes: by `join` task.
        late_records: by partition, records behind the watermark of its `aggregate` task.
        released: examples in total order that no poll has returned yet; they precede everything buffered.
        topic_id: id of the topic; empty: not known.
    """

    offsets: list[int]
    sequences: list[int]
    merged_watermark: MergedWatermark
    buffered: list[list[Example]]
    reached_end_offsets: list[dict[int, int]] = []
    outcomes: dict[int, Outcomes] = {}
    late_records: list[int] = []
    released: list[Example] = []
    topic_id: str = ""


class ExampleReader:
    """Merges the partitions of `training-examples`; pauses those that are ahead, never the one to wait for."""

    def __init__(self, connection: Connection, topics: Topics, state: ReaderState | None = None) -> None:
        """Start at offset 0, or resume from `state`.

        Raises:
            PrectrError: the broker does not answer, or the topic does not exist.
            StateError: the log no longer holds the next record.
        """
        self._topic = topics.examples
        self._watch = TopicWatch(connection, self._topic, state.topic_id if state else "")
        count = self._watch.description.partitions
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
        self._half_lives: int | None = None
        """Number of decayed sums of every example; None before the first."""
        self._paused: dict[TopicPartition, int] = {}
        """By paused partition, the offset to resume at."""
        self._known_end_offsets: dict[TopicPartition, int] = {}
        """Last end offset that the broker reported, which the client forgets when a partition is paused."""
        self._consumer = connection.watched_consumer(
            max_poll_records=64,
            auto_offset_reset="none",
        )
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
                raise offset_out_of_range(where, offset, start_offsets[partition])
            if offset > end_offsets[partition]:
                raise StateError(
                    f"{where}: offset {offset} is next, but the log ends at {end_offsets[partition]}: the topic was "
                    "recreated, or the broker has lost records",
                    Remedy.OTHER_RUN_DIR,
                )
            self._consumer.seek(partition, offset)

    def ended(self, ends: Sequence[int]) -> bool:
        """Return whether every example of the events up to `ends` has been read; `ends` is an offset per partition.

        True only if the stages were requested to report that end, or a later one.
        """
        return all(
            reached.get(source, -1) >= end for reached in self._reached_end_offsets for source, end in enumerate(ends)
        )

    def stop_at(self, ends: Sequence[int]) -> None:
        """Ignore records from these offsets on, one per partition; `at_end` is true once they are reached."""
        self._stop_offsets = list(ends)

    @property
    def at_end(self) -> bool:
        """Whether the offsets given to `stop_at` are reached, and transactions that were open there have ended."""
        assert self._stop_offsets is not None
        return all(self._position(each) >= end for each, end in zip(self._partitions, self._stop_offsets, strict=True))

    def waiting_reason(self) -> str:
        """Return, in words, why no examples arrive; fetches the end offsets."""
        try:
            ends = self._consumer.end_offsets(self._partitions, timeout_ms=_END_OFFSETS_TIMEOUT_MS)
        except KafkaError:
            return "Kafka does not answer"
        # Positions, not offsets of frames: the last frame is followed by a commit marker.
        if any(ends[each] > self._position(each) for each in self._partitions):
            return "committed records have not arrived yet"
        return "the stages have committed nothing new"

    def lag(self) -> list[int | None]:
        """Return the number of unread records by partition as of the last fetch; None before it."""
        lags: list[int | None] = []
        for partition in self._partitions:
            end = self._end_offset(partition)
            lags.append(None if end is None else max(0, end - self._position(partition)))
        return lags

    def _position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record, past transaction markers."""
        paused_at = self._paused.get(partition)
        return next_offset(self._consumer, partition) if paused_at is None else paused_at

    def _end_offset(self, partition: TopicPartition) -> int | None:
        """Return the end offset of a partition as of the last fetch."""
        high_watermark = None if partition in self._paused else self._consumer.highwater(partition)
        if high_watermark is not None:
            self._known_end_offsets[partition] = high_watermark
        return self._known_end_offsets.get(partition)

    def release_all(self) -> ReleasedBatch:
        """End every source and return everything that is still buffered, in order."""
        for source in range(len(self._partitions)):
            self._merge.end_source(source)
        examples, watermark = self._merge.release()
        released, self._released = self._released, []
        return ReleasedBatch(released + examples, watermark)

    @property
    def late_records(self) -> int:
        """Records behind the watermark of the stages or of this reader."""
        return self._merge.merged_watermark.late_records + sum(self._late_records)

    def poll(self) -> ReleasedBatch:
        """Return the next batch of examples in total order; empty if nothing new was released."""
        if len(self._released) > _MAX_BATCH_EXAMPLES:
            return self._next_batch()
        try:
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=0 if self._released else _POLL_MS)
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            raise self._watch.lost_records_error(error) from error
        self._watch.check(self._consumer)
        for partition, records in polled.items():
            stop_offset = self._stop_offsets[partition.partition] if self._stop_offsets is not None else END_OF_LOG
            for record in records:
                if record.offset < stop_offset:
                    self._add_frame(partition.partition, record.value or b"", record.offset)
        self._released += self._merge.release()[0]
        self._pause_ahead()
        return self._next_batch()

    def _next_batch(self) -> ReleasedBatch:
        """Return a limited batch: stop requests, checkpoints and the clock are checked between batches."""
        batch, self._released = self._released[:_MAX_BATCH_EXAMPLES], self._released[_MAX_BATCH_EXAMPLES:]
        return ReleasedBatch(batch, self._released[0].closes_at - 1 if self._released else self._merge.watermark)

    def state(self) -> ReaderState:
        """Return the state from which another reader can resume."""
        return ReaderState(
            list(self._offsets),
            list(self._sequences),
            self._merge.merged_watermark,
            self._merge.buffered_by_source(),
            self._reached_end_offsets,
            self.outcomes,
            list(self._late_records),
            list(self._released),
            self._watch.description.topic_id,
        )

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def _add_frame(self, source: int, value: bytes, offset: int) -> None:
        where = f"{self._topic} partition {source} offset {offset}"
        frame = decode_frame(value, where, len(self._partitions))
        if frame.source != source:
            raise damaged_frame(where, ValueError(f"it is of task {frame.source}, which does not write here"))
        if frame.sequence != self._sequences[source]:
            raise StateError(
                f"{where}: found frame {frame.sequence} instead of {self._sequences[source]}: the topic has lost or "
                "repeated records, or another system writes to it",
                Remedy.OTHER_TOPIC_PREFIX,
            )
        records = examples_of(frame, where)
        for record in records:
            if self._half_lives is None:
                self._half_lives = len(record.query_decayed)
            if len(record.query_decayed) != self._half_lives:
                found = f"sums of {len(record.query_decayed)} half-lives, those before have {self._half_lives}"
                raise damaged_frame(where, ValueError(found))
        self._sequences[source] += 1
        self._offsets[source] = offset + 1
        watermark = frame.watermark if frame.is_last_part else self._merge.merged_watermark.source_watermarks[source]
        self._merge.add(source, records, watermark)
        for task, outcomes in frame.outcomes.items():
            # Each partition reports the outcomes that it has received; the most recent ones are right.
            known = self.outcomes.get(task)
            if known is None or outcomes.records >= known.records:
                self.outcomes[task] = outcomes
        if frame.is_last_part:
            self._reached_end_offsets[source] |= frame.reached_end_offsets
            self._late_records[source] = frame.late_records

    def _pause_ahead(self) -> None:
        """Pause the partitions that are ahead, and resume others; at least one is never paused.

        By assignment: after the client's own `pause` in the middle of a fetched batch, a partition may never be read
        again (kafka-python 3.0.12: the fetcher drops it while a fully consumed partition is next in its queue).
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
