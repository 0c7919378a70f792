"""What waits to be read behind a committed position: how much, since when, and whether it can be read at all."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from kafka import TopicPartition

from prectr.ops.doctor.broker.newest_records import NEWEST_OFFSETS, NewestRecords
from prectr.ops.doctor.findings import Finding
from prectr.state.errors import StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.ordering.frame_records import examples_of, joined_pages_of
from prectr.stream.ordering.frames import Frame, decode_frame

_RECORDS: Final = 200
"""Records after the position that are looked at: those of the next micro-batches."""
_READ_TIMEOUT: Final = 1.5


def unread_records(position: int, end: int, newest: Sequence[Any], *, are_frames: bool) -> int:
    """Return how many records wait, a few more where markers of transactions lie between; 0 if there is no work.

    Args:
        position: offset of the next record that the reader needs.
        end: offset after the last record.
        newest: the last records of the partition.
        are_frames: whether they are frames. Those without records tell times only and are no work.
    """
    if position >= end:
        return 0
    if position < (newest[0].offset if newest else end - NEWEST_OFFSETS):
        return end - position
    waiting = [record for record in newest if record.offset >= position and (not are_frames or _has_work(record))]
    return waiting[-1].offset + 1 - position if waiting else 0


def _has_work(record: Any) -> bool:
    try:
        return bool(decode_frame(record.value or b"", "").records)
    except StateError:
        return True


def fetch_next_records(connection: Connection, positions: Mapping[TopicPartition, int]) -> NewestRecords:
    """Read the committed records from these positions on; as many as come in a short time."""
    if not positions:
        return {}
    consumer = connection.consumer(group_id=None, max_poll_records=_RECORDS * len(positions))
    found: NewestRecords = {}
    try:
        with connection.translate_errors():
            consumer.assign(sorted(positions))
            for partition, position in positions.items():
                consumer.seek(partition, position)
            deadline = time.monotonic() + _READ_TIMEOUT
            while len(found) < len(positions) and time.monotonic() < deadline:
                for partition, records in consumer.poll(timeout_ms=200).items():
                    found.setdefault(partition, []).extend(records[:_RECORDS])
    finally:
        consumer.close()
    return found


def check_frames(records: NewestRecords, topics: Topics, partitions: int) -> Iterator[Finding]:
    """Find records between the stages that no task has written: their reader stops there, after every restart."""
    decoders: dict[str, Callable[[Frame, str], object]] = {
        topics.joined_pages: joined_pages_of,
        topics.examples: examples_of,
    }
    for partition, waiting in sorted(records.items()):
        decode = decoders.get(partition.topic)
        if decode is None:
            continue
        for record in waiting:
            name = f"{partition.topic} partition {partition.partition} offset {record.offset}"
            try:
                decode(decode_frame(record.value or b"", name, partitions), name)
            except StateError as error:
                yield Finding("next record", "error", error.message.rstrip(","), str(error).removeprefix(error.message))
                break
