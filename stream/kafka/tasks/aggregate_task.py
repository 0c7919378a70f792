"""Stage `queries` over one partition of the activity."""

import time
from collections.abc import Sequence
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.aggregates import NO_COUNTS, add_counts
from prectr.stream.aggregate.operator import Queries
from prectr.stream.join.event_clock import BEFORE_TIME
from prectr.stream.kafka.client.end_offsets import LogEnds
from prectr.stream.kafka.tasks.task import FRAME_EVERY, Place, Task
from prectr.stream.kafka.tasks.task_metrics import StageCounts, levels_of
from prectr.stream.kafka.transactions.producer import CommittedOffsets, Outbox
from prectr.stream.ordering.frames import decode_frame, encode_frames
from prectr.stream.records import Example, decode_activity, encode_record


class QueriesTask(Task):
    """Stage `queries` over one partition of the activity."""

    stage = "queries"

    def __init__(self, place: Place, log_ends: LogEnds, offsets: CommittedOffsets) -> None:
        self.input_topic = place.topics.activity
        self._told = BEFORE_TIME
        self._levels = NO_COUNTS
        super().__init__(place, log_ends, offsets)

    @property
    def ends(self) -> list[int]:
        """By `sessions` task, how far it has been read where an end was asked for, as put out; -1 where not."""
        return self.said.ends or [-1] * self.place.config.partitions

    @property
    def _output_topics(self) -> Sequence[str]:
        return [self.place.topics.examples]

    @property
    def _outputs(self) -> int:
        return 1

    @property
    def _watermark(self) -> int:
        return self._queries.watermark

    def _open(self) -> int:
        self._queries = Queries(self.place.config, self.store, self.place.config.partitions)
        return self._queries.offset

    @property
    def _must_write(self) -> bool:
        return self._queries.behind

    def _counted(self) -> StageCounts:
        return StageCounts(levels=self._levels, heard=self._queries.heard)

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._queries.take_changes()

    def _absorb(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        for record in records:
            where = f"{record.topic} partition {record.partition} offset {record.offset}"
            frame = decode_frame(record.value or b"", where)
            self._queries.take_frame(frame, [decode_activity(activity) for activity in frame.records])
        self._queries.offset = offset

    def _repeat(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        # Nothing is released before the commit is reached: a round that found memory short had put out less.
        self._absorb(records, offset)

    def _caught_up(self) -> None:
        pass

    def _take(self, records: Sequence[ConsumerRecord], offset: int) -> Outbox:
        self._absorb(records, offset)
        return self._put_out()

    def take(self, records: Sequence[ConsumerRecord], group: Any) -> None:
        """Take frames, then whatever more is due than memory had room for."""
        super().take(records, group)
        self._drain(group)

    def keep_up(self, group: Any) -> None:
        """Without input: put out what a restart found due, and tell the last watermark."""
        self.write_if_due()
        self._drain(group)
        untold = self._told < self._queries.watermark and time.monotonic() - self._framed >= FRAME_EVERY
        if untold and self.position >= self._committed:
            self._transact(self._put_out, self._committed, group)

    def _drain(self, group: Any) -> None:
        while self._queries.behind and self.position >= self._committed:
            self._transact(self._put_out, self._committed, group)

    def _put_out(self) -> Outbox:
        examples = self._fresh(self._queries.process())
        self._levels = add_counts(self._levels, levels_of(examples))
        outbox = Outbox()
        ends = [self._queries.ends.get(source, -1) for source in range(self.place.config.partitions)]
        ended = ends != self.ends and not self._queries.behind
        if not examples and not ended and time.monotonic() - self._framed < FRAME_EVERY:
            return outbox
        if ended:
            self.said.ends = ends
        self._framed, self._told = time.monotonic(), self._queries.watermark
        parts = encode_frames(
            self.place.partition,
            self.said.sequences[0],
            [encode_record(example) for example in examples],
            self._queries.watermark,
            ends={source: end for source, end in enumerate(self.ends) if end >= 0},
            outcomes=self._queries.outcomes,
            out_of_order=self._queries.out_of_order,
        )
        self.said.sequences[0] += len(parts)
        for part in parts:
            outbox.add(self.place.topics.examples, self.place.partition, part)
        return outbox

    def _fresh(self, examples: list[Example]) -> list[Example]:
        """Those that no commit holds yet: after a crash, state that lags behind puts out again what was committed."""
        known = self.said.emitted - (self._queries.emitted - len(examples))
        self.said.emitted = max(self.said.emitted, self._queries.emitted)
        return examples[known:] if known > 0 else examples
