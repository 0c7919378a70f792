"""Reads the committed records of a topic up to where it ends now, in bounded memory."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from prectr.stream.kafka.client.topics import partition_count

_POLL_MS: Final = 200
_MAX_FETCH_BYTES: Final = 16 << 20
_MAX_PARTITION_FETCH_BYTES: Final = 4 << 20
_STALL_TIMEOUT: Final = 90.0
"""Longer than the transaction timeout of this program's producers."""

Progress = Callable[[int, int], None]


def no_progress(_done: int, _total: int) -> None:
    """Ignore progress."""


class TopicReader:
    """Reads the committed records of a topic, one partition after another, in batches.

    Attributes:
        topic: its name.
        start_offsets, end_offsets: by partition, the range of offsets to read.
    """

    def __init__(self, connection: Connection, topic: str, *, max_poll_records: int, await_open: bool = False) -> None:
        """Fetch the range of offsets to read.

        Args:
            max_poll_records: size of a batch; the records of one are in memory at the same time.
            await_open: include transactions that are open now, and wait for their end when reading; otherwise the
                range ends before them.

        Raises:
            PrectrError: the broker does not answer, or the topic does not exist.
        """
        self.topic = topic
        self._connection = connection
        self._partitions = [TopicPartition(topic, number) for number in range(partition_count(connection, topic))]
        self._consumer = connection.consumer(
            group_id=None,
            max_poll_records=max_poll_records,
            fetch_max_bytes=_MAX_FETCH_BYTES,
            max_partition_fetch_bytes=_MAX_PARTITION_FETCH_BYTES,
        )
        try:
            with connection.translate_errors():
                starts = self._consumer.beginning_offsets(self._partitions)
                ends = self._consumer.end_offsets(self._partitions)
            self.start_offsets = [int(starts[partition]) for partition in self._partitions]
            self.end_offsets = [int(ends[partition]) for partition in self._partitions]
            if await_open:
                self.end_offsets = fetch_end_offsets(connection, topic)
        except BaseException:
            self._consumer.close()
            raise

    def read(
        self, start: Mapping[int, int] | None = None, progress: Progress = no_progress
    ) -> Iterator[list[ConsumerRecord]]:
        """Yield the records in order of partition and offset.

        Args:
            start: by partition, the first offset to read; None for all partitions from their start.
            progress: called with the offsets read, and their total.

        Raises:
            PrectrError: no records arrive, because the broker is unavailable or a transaction stays open.
        """
        starts = dict(enumerate(self.start_offsets)) if start is None else start
        ranges = [
            (partition, max(first, self.start_offsets[partition]), self.end_offsets[partition])
            for partition, first in sorted(starts.items())
            if partition < len(self._partitions)
        ]
        total = sum(max(0, end - first) for _, first, end in ranges)
        done = 0
        for partition, first, end in ranges:
            for records, position in self.read_range(partition, first, end):
                progress(done + min(position, end) - first, total)
                yield records
            done += max(0, end - first)

    def read_range(self, partition: int, first: int, end: int) -> Iterator[tuple[list[ConsumerRecord], int]]:
        """Yield the records from `first` to before `end`, each batch with the offset after it; raises as `read`."""
        if first >= end:
            return
        topic_partition = TopicPartition(self.topic, partition)
        with self._connection.translate_errors():
            self._consumer.assign([topic_partition])
            self._consumer.seek(topic_partition, first)
        position, progressed_at = first, time.monotonic()
        while position < end:
            with self._connection.translate_errors():
                polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
                new_position = int(self._consumer.position(topic_partition))
            if new_position > position:
                position, progressed_at = new_position, time.monotonic()
            elif time.monotonic() - progressed_at > _STALL_TIMEOUT:
                raise PrectrError(
                    f"{self.topic} {partition}:{position}: no records for {_STALL_TIMEOUT:.0f} s: the broker is "
                    "unavailable, or a program has left a transaction open there. Rerun the command later"
                )
            yield [record for record in polled.get(topic_partition, []) if record.offset < end], position

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
