"""What the committed records of the output topics say of the tasks that wrote them.

A task commits its outputs and the offset after their input together, so its last frames tell how far it has come.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import Remedy, StateError
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.dlq.reader import DeadLetterReader
from prectr.stream.kafka.dlq.records import decode_dead_letter, is_retry_marker
from prectr.stream.ordering.frames import Frame, decode_frame

_FIRST_WINDOW: Final = 2_000
"""Offsets at the end of a partition that are read first; twice as many each time that a task's frame is missing."""
_POLL_MS: Final = 200
_STALL_TIMEOUT: Final = 90.0
"""Longer than the transaction timeout of this program's producers."""
Progress = Callable[[str], None]


@dataclass(slots=True)
class JoinOutput:
    """What a `join` task has written.

    Attributes:
        sequences: by partition of joined-pages, sequence number of its next frame.
        read_offset: offset up to which it had read the events at its last frame.
        emitted: pages emitted since the group's first event.
        reached_end_offset: the requested end that it has reached and reported; -1: none.
        watermark: up to which it has processed event time (ms).
    """

    sequences: list[int]
    read_offset: int = 0
    emitted: int = 0
    reached_end_offset: int = -1
    watermark: int = MIN_WATERMARK


@dataclass(slots=True)
class AggregateOutput:
    """What an `aggregate` task has written.

    Attributes:
        sequence: sequence number of its next frame.
        emitted: examples emitted since the group's first page.
        reached_end_offsets: by `join` task, the requested end that it has reached.
    """

    sequence: int = 0
    emitted: int = 0
    reached_end_offsets: dict[int, int] = field(default_factory=dict)


def read_join_output(connection: Connection, topics: Topics, partitions: int, progress: Progress) -> list[JoinOutput]:
    """Return the output of each `join` task, from the last frames of joined-pages.

    Raises:
        StateError: retention has removed the last frame of a task.
    """
    outputs = [JoinOutput([0] * partitions) for _ in range(partitions)]
    with closing(connection.consumer(group_id=None)) as consumer, connection.translate_errors():
        for number in range(partitions):
            partition = TopicPartition(topics.joined_pages, number)
            progress(f"reading the end of {partition.topic} partition {number}")
            frames = _last_frames(consumer, partition, partitions)
            _check_all_known(consumer, partition, frames, partitions)
            for source, frame in frames.items():
                output = outputs[source]
                output.sequences[number] = frame.sequence + 1
                if frame.read_offset >= output.read_offset:
                    output.read_offset = frame.read_offset
                    output.emitted = max(output.emitted, frame.outcomes[source].pages.emitted)
                ended = frame.reached_end_offsets.get(source, -1)
                output.reached_end_offset = max(output.reached_end_offset, ended)
                output.watermark = max(output.watermark, frame.watermark)
    return outputs


def has_frames(connection: Connection, topic: str, numbers: Sequence[int], source: int, tasks: int) -> bool:
    """Return whether a task has committed frames to these partitions, as far as they are retained.

    Args:
        source: the task.
        tasks: number of tasks of its stage.
    """
    with closing(connection.consumer(group_id=None)) as consumer, connection.translate_errors():
        for number in numbers:
            partition = TopicPartition(topic, number)
            _, end = _range(consumer, partition)
            if end and source in _last_frames(consumer, partition, tasks):
                return True
    return False


def read_aggregate_output(
    connection: Connection, topics: Topics, partitions: int, progress: Progress
) -> list[AggregateOutput]:
    """Return the output of each `aggregate` task; reads all of training-examples, since it counts the examples.

    Raises:
        StateError: retention has removed examples, so their number is not known.
    """
    outputs = [AggregateOutput() for _ in range(partitions)]
    with closing(connection.consumer(group_id=None)) as consumer, connection.translate_errors():
        for number, output in enumerate(outputs):
            partition = TopicPartition(topics.examples, number)
            start, end = _range(consumer, partition)
            if start > 0:
                raise StateError(
                    f"{partition.topic} partition {number} begins at offset {start}: retention has removed examples, "
                    "so how many the task had written is not known",
                    Remedy.START_OVER_LIVE,
                )
            for record in _records(consumer, partition, start, end):
                frame = _decode(record, partitions)
                output.sequence = frame.sequence + 1
                output.emitted += len(frame.records)
                if frame.is_last_part:
                    output.reached_end_offsets |= frame.reached_end_offsets
                progress(f"counting {partition.topic} partition {number}: {record.offset:,} of {end:,} records")
    return outputs


def read_dead_letter_offsets(connection: Connection, topics: Topics, partitions: int, progress: Progress) -> list[int]:
    """Return by partition of search-events the offset after the last event that is a dead letter; 0 without one."""
    after = [0] * partitions
    reader = DeadLetterReader(connection, topics, await_open=True)
    try:
        for records in reader.read(
            progress=lambda done, total: progress(f"reading {reader.topic}: {done:,} of {total:,} records")
        ):
            for record in records:
                if is_retry_marker(record):
                    continue
                letter = decode_dead_letter(record)
                if letter.topic == topics.events and 0 <= letter.partition < partitions:
                    after[letter.partition] = max(after[letter.partition], letter.offset + 1)
    finally:
        reader.close()
    return after


def _last_frames(consumer: KafkaConsumer, partition: TopicPartition, tasks: int) -> dict[int, Frame]:
    """Return the last frame of each task, as far back as the partition is retained."""
    start, end = _range(consumer, partition)
    window = _FIRST_WINDOW
    while True:
        first = max(start, end - window)
        frames = {
            frame.source: frame
            for record in _records(consumer, partition, first, end)
            if (frame := _decode(record, tasks)).is_last_part
        }
        if len(frames) == tasks or first == start:
            return frames
        window *= 2


def _check_all_known(
    consumer: KafkaConsumer, partition: TopicPartition, frames: Mapping[int, Frame], tasks: int
) -> None:
    """Check that no task's frames can have been removed.

    Raises:
        StateError: there is none of a task, and retention has removed records.
    """
    start, _ = _range(consumer, partition)
    missing = ", ".join(str(task) for task in range(tasks) if task not in frames)
    if missing and start > 0:
        raise StateError(
            f"{partition.topic} partition {partition.partition} begins at offset {start} and has no frame of the tasks "
            f"{missing}: retention has removed them, so how far they had come is not known",
            Remedy.START_OVER_LIVE,
        )


def _range(consumer: KafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
    return consumer.beginning_offsets([partition])[partition], consumer.end_offsets([partition])[partition]


def _records(consumer: KafkaConsumer, partition: TopicPartition, start: int, end: int) -> Iterator[ConsumerRecord]:
    """Yield the committed records from `start` up to `end`.

    Raises:
        StateError: nothing arrives, because a transaction is open.
    """
    consumer.assign([partition])
    consumer.seek(partition, start)
    arrived_at = time.monotonic()
    while consumer.position(partition) < end:
        position = consumer.position(partition)
        for record in consumer.poll(timeout_ms=_POLL_MS).get(partition, []):
            if record.offset < end:
                yield record
        if consumer.position(partition) > position:
            arrived_at = time.monotonic()
        elif time.monotonic() - arrived_at > _STALL_TIMEOUT:
            raise StateError(
                f"{partition.topic} partition {partition.partition}: nothing after offset {position} can be read: "
                "see whether `doctor` names an open transaction"
            )


def _decode(record: ConsumerRecord, tasks: int) -> Frame:
    where = f"{record.topic} partition {record.partition} offset {record.offset}"
    return decode_frame(record.value or b"", where, tasks)
