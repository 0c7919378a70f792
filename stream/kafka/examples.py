"""Reads `training-examples` in the one order, from all of its partitions."""

from collections.abc import Sequence
from typing import Any

import msgspec
from kafka import TopicPartition

from state.errors import StateError
from stream.clock import BEFORE_TIME
from stream.embedded import Step
from stream.frames import decode_frame
from stream.kafka.client import Connection
from stream.kafka.topics import Topics, partition_count
from stream.merge import Merge, MergeProgress
from stream.outcomes import Outcomes
from stream.records import Example, decode_example

_POLL_MS = 200


class ReaderState(msgspec.Struct):
    """Where a reader stands: everything that it needs to go on.

    offsets: of the next unread record of each partition. sequences: of the next frame. held: records that wait for
    the others. ended: partitions read to the end that was asked for. outcomes: by `sessions` task.
    """

    offsets: list[int]
    sequences: list[int]
    progress: MergeProgress
    held: list[list[Example]]
    ended: list[int] = []
    outcomes: dict[int, Outcomes] = {}


class ExampleReader:
    """Merges the partitions of `training-examples`; pauses those that are ahead, never the one that holds the line."""

    def __init__(self, connection: Connection, topics: Topics, state: ReaderState | None = None) -> None:
        """Begin at the beginning, or go on from `state`.

        Raises:
            PrectrError: no broker, or no topic.
            StateError: the log no longer holds what comes next.
        """
        self._topic = topics.examples
        count = partition_count(connection, self._topic)
        self._partitions = [TopicPartition(self._topic, number) for number in range(count)]
        self._merge: Merge[Example] = Merge(count, progress=state.progress if state else None)
        self._offsets = list(state.offsets) if state else [0] * count
        self._sequences = list(state.sequences) if state else [0] * count
        self._ended = set(state.ended) if state else set()
        self.outcomes = dict(state.outcomes) if state else {}
        if state is not None:
            for source, records in enumerate(state.held):
                self._merge.add(source, records, BEFORE_TIME)
        self._consumer = connection.consumer(group_id=None, max_poll_records=64)
        self._consumer.assign(self._partitions)
        first = self._consumer.beginning_offsets(self._partitions)
        for partition, offset in zip(self._partitions, self._offsets, strict=True):
            if offset < first[partition]:
                raise StateError(
                    f"{self._topic} partition {partition.partition}: offset {offset} is next, but the log begins at "
                    f"{first[partition]}: retention has removed what was never read. Rebuild from search-events under "
                    "a new --topic-prefix"
                )
            self._consumer.seek(partition, offset)

    @property
    def ended(self) -> bool:
        """Whether every partition has been read to the end that was asked for."""
        return len(self._ended) == len(self._partitions)

    @property
    def out_of_order(self) -> int:
        """Records that came behind the line."""
        return self._merge.progress.out_of_order

    def poll(self) -> Step:
        """The next examples that are due; none where nothing new has come."""
        polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
        for partition, records in polled.items():
            for record in records:
                self._take(partition.partition, record.value, record.offset)
        examples, line = self._merge.release()
        return Step(examples, line, [])

    def state(self) -> ReaderState:
        """Where the reader stands now."""
        return ReaderState(
            list(self._offsets),
            list(self._sequences),
            self._merge.progress,
            self._merge.waiting(),
            sorted(self._ended),
            self.outcomes,
        )

    def end_offsets(self) -> list[int]:
        """Where the partitions end now."""
        ends = self._consumer.end_offsets(self._partitions)
        return [ends[partition] for partition in self._partitions]

    def positions(self) -> list[int]:
        """Offset of the next record of each partition, past transaction markers."""
        return [self._consumer.position(partition) for partition in self._partitions]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _take(self, source: int, value: bytes, offset: int) -> None:
        where = f"{self._topic} partition {source} offset {offset}"
        frame = decode_frame(value, where)
        if frame.sequence != self._sequences[source]:
            raise StateError(f"{where}: frame {frame.sequence} came where {self._sequences[source]} was due")
        self._sequences[source] += 1
        self._offsets[source] = offset + 1
        records: Sequence[Example] = [decode_example(record) for record in frame.records]
        watermark = frame.watermark if frame.last else self._merge.progress.watermarks[source]
        self._merge.add(source, records, watermark)
        for task, outcomes in frame.outcomes.items():
            # Each partition tells what it has heard so far; the one that has heard most is right.
            known = self.outcomes.get(task)
            if known is None or outcomes.records >= known.records:
                self.outcomes[task] = outcomes
        if frame.ended and frame.last:
            self._ended.add(source)
        else:
            self._ended.discard(source)
