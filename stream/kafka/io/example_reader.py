"""Reads `training-examples` in the one order, from all of its partitions."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from prectr.state.errors import StateError
from prectr.stream.join.event_clock import BEFORE_TIME
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, partition_count
from prectr.stream.kafka.tasks.task import lost
from prectr.stream.ordering.frames import END_OF_LOG, decode_frame
from prectr.stream.ordering.ordered_merge import Merge
from prectr.stream.ordering.watermark import LineProgress
from prectr.stream.records import Example, decode_example
from prectr.stream.replay.local_tasks import Step

_POLL_MS: Final = 200
_ASK_MS: Final = 2_000
_STEP: Final = 1_024
_AHEAD: Final = 4_096
"""Records held of a partition beyond which it is not read on, unless it is what the others wait for."""


class ReaderState(msgspec.Struct):
    """Where a reader stands: everything that it needs to go on.

    offsets: of the next unread record of each partition. sequences: of the next frame. held: records that wait for
    the others. ends: by partition, how far each `sessions` task has been read where an end was asked for.
    outcomes: by `sessions` task. behind: by partition, records that came behind the line of its `queries` task.
    due: examples in the one order that have not been handed on yet, before all that is held.
    """

    offsets: list[int]
    sequences: list[int]
    progress: LineProgress
    held: list[list[Example]]
    ends: list[dict[int, int]] = []
    outcomes: dict[int, Outcomes] = {}
    behind: list[int] = []
    due: list[Example] = []


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
        self._merge: Merge[Example] = Merge(count, progress=state.progress if state else None)
        self._offsets = list(state.offsets) if state else [0] * count
        self._sequences = list(state.sequences) if state else [0] * count
        self._ends: list[dict[int, int]] = state.ends if state else [{} for _ in range(count)]
        self._upto: list[int] | None = None
        self._behind = list(state.behind) if state else [0] * count
        self._due = list(state.due) if state else []
        self.outcomes = dict(state.outcomes) if state else {}
        if state is not None:
            for source, records in enumerate(state.held):
                self._merge.add(source, records, BEFORE_TIME)
        self._aside: dict[TopicPartition, int] = {}
        """Where partitions that are not read for now go on."""
        self._reached: dict[TopicPartition, int] = {}
        """How far partitions reached when the broker last told, which the client forgets with the assignment."""
        self._consumer = connection.consumer(group_id=None, max_poll_records=64)
        try:
            self._start()
        except BaseException:
            self._consumer.close()
            raise

    def _start(self) -> None:
        self._consumer.assign(self._partitions)
        first = self._consumer.beginning_offsets(self._partitions)
        last = self._consumer.end_offsets(self._partitions)
        for partition, offset in zip(self._partitions, self._offsets, strict=True):
            where = f"{self._topic} partition {partition.partition}"
            if offset < first[partition]:
                raise StateError(lost(where, offset, first[partition]))
            if offset > last[partition]:
                raise StateError(
                    f"{where}: offset {offset} is next, but the log ends at {last[partition]}: the topic was made "
                    "anew, or the broker has lost records. Begin again with another --run-dir"
                )
            self._consumer.seek(partition, offset)

    def ended(self, ends: Sequence[int]) -> bool:
        """Whether all that came of the events up to `ends`, by partition, has been read.

        The stages must have been told to end there or later.
        """
        return all(heard.get(source, -1) >= end for heard in self._ends for source, end in enumerate(ends))

    def read_to(self, ends: Sequence[int]) -> None:
        """Take nothing at or behind these offsets, by partition; `at_end` tells when they are reached."""
        self._upto = list(ends)

    @property
    def at_end(self) -> bool:
        """Whether the offsets given to `read_to` are reached, transactions that were open then ended."""
        assert self._upto is not None
        return all(self._position(each) >= end for each, end in zip(self._partitions, self._upto, strict=True))

    def waiting_for(self) -> str:
        """What a reader to whom nothing comes is waiting for, in words; asks the broker."""
        try:
            ends = self._consumer.end_offsets(self._partitions, timeout_ms=_ASK_MS)
        except KafkaError:
            return "Kafka does not answer"
        # Positions, not offsets of frames: behind the last frame stands the mark of its commit.
        if any(ends[each] > self._position(each) for each in self._partitions):
            return "more is committed than has come so far"
        return "the stages have committed nothing more"

    def lag(self) -> list[int | None]:
        """By partition, records that have been written and not read yet, as of the last answer; None before one."""
        found: list[int | None] = []
        for partition in self._partitions:
            end = self._end(partition)
            found.append(None if end is None else max(0, end - self._position(partition)))
        return found

    def _position(self, partition: TopicPartition) -> int:
        """Offset of the next record to come, past the marks of transactions."""
        aside = self._aside.get(partition)
        return int(self._consumer.position(partition)) if aside is None else aside

    def _end(self, partition: TopicPartition) -> int | None:
        """How far a partition reaches, as of the last answer."""
        told = None if partition in self._aside else self._consumer.highwater(partition)
        if told is not None:
            self._reached[partition] = told
        return self._reached.get(partition)

    def release_all(self) -> Step:
        """Every source counts as past everything: what is still held, in order."""
        for source in range(len(self._partitions)):
            self._merge.end(source)
        examples, line = self._merge.release()
        due, self._due = self._due, []
        return Step(due + examples, line, [])

    @property
    def out_of_order(self) -> int:
        """Records that came behind the line, of the stages or of this reader."""
        return self._merge.progress.out_of_order + sum(self._behind)

    def poll(self) -> Step:
        """The next examples that are due, some at a time; none where nothing new has come."""
        if len(self._due) > _STEP:
            return self._next()
        polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=0 if self._due else _POLL_MS)
        for partition, records in polled.items():
            upto = self._upto[partition.partition] if self._upto is not None else END_OF_LOG
            for record in records:
                if record.offset < upto:
                    self._take(partition.partition, record.value or b"", record.offset)
        self._due += self._merge.release()[0]
        self._hold_back()
        return self._next()

    def _next(self) -> Step:
        """The first of what is due: a step is what lies between two looks at a stop, a checkpoint or the clock."""
        step, self._due = self._due[:_STEP], self._due[_STEP:]
        return Step(step, self._due[0].closes_at - 1 if self._due else self._merge.line, [])

    def state(self) -> ReaderState:
        """Where the reader stands now."""
        return ReaderState(
            list(self._offsets),
            list(self._sequences),
            self._merge.progress,
            self._merge.waiting(),
            self._ends,
            self.outcomes,
            list(self._behind),
            list(self._due),
        )

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _take(self, source: int, value: bytes, offset: int) -> None:
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
        watermark = frame.watermark if frame.last else self._merge.progress.watermarks[source]
        self._merge.add(source, records, watermark)
        for task, outcomes in frame.outcomes.items():
            # Each partition tells what it has heard so far; the one that has heard most is right.
            known = self.outcomes.get(task)
            if known is None or outcomes.records >= known.records:
                self.outcomes[task] = outcomes
        if frame.last:
            self._ends[source] |= frame.ends
            self._behind[source] = frame.out_of_order

    def _hold_back(self) -> None:
        """Leave the partitions that are ahead, and take up again those that are no longer; one always holds the line.

        By assignment: a partition that was paused in the middle of what had been fetched may never be read again
        (kafka-python 3.0.12: its fetcher forgets it while another, whose records have all been handed out, is in line).
        """
        progress = self._merge.progress
        ahead = {
            partition
            for partition, records, watermark in zip(
                self._partitions, self._merge.waiting(), progress.watermarks, strict=True
            )
            if len(records) > _AHEAD and watermark > progress.line
        }
        if ahead == self._aside.keys():
            return
        back = self._aside.keys() - ahead
        for partition in ahead:
            self._end(partition)
        aside = {partition: self._position(partition) for partition in ahead}
        self._consumer.assign([partition for partition in self._partitions if partition not in ahead])
        for partition in back:
            self._consumer.seek(partition, self._aside[partition])
        self._aside = aside
