"""A task of a stage on Kafka: state and log brought together, then exactly once from there on."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from state.errors import StateError
from state.store import Store
from stream.clock import END_OF_TIME
from stream.config import PipelineConfig
from stream.decode import decode_lines
from stream.events import Impression
from stream.frames import decode_frame, encode_frames
from stream.kafka.client import Connection
from stream.kafka.topics import Topics
from stream.kafka.transaction import Outbox, Transactions
from stream.partition import partitions_of
from stream.queries import Queries
from stream.records import Activity, decode_activity, encode_record
from stream.sessions import MicroBatch, Refused, Sessions

_Record = TypeVar("_Record")
_IDENTITY: Final = b"i"
_FRAME_EVERY: Final = 1.0
"""Seconds between frames that carry only a watermark."""


class StoreIdentity(msgspec.Struct, frozen=True):
    """What a state folder belongs to; refused where any of it differs."""

    cluster: str
    topic: str
    stage: str
    partition: int
    config: dict[str, Any]


class Place(msgspec.Struct, frozen=True):
    """Where a task stands: everything that it needs to be opened."""

    connection: Connection
    topics: Topics
    group: str
    partition: int
    config: PipelineConfig
    state_dir: Path
    cluster: str


class Task(ABC):
    """Reads one partition, in transactions. State may lag behind the commit and never runs ahead of it.

    Opened, it first takes the records between its store and the commit again, in silence: their outputs are
    committed already.
    """

    stage: str
    input_topic: str

    def __init__(self, place: Place, consumer: KafkaConsumer) -> None:
        """Open the store, fence earlier owners, and put the consumer where the store stands.

        Raises:
            StateError: the store belongs to something else, or is ahead of the commit.
        """
        self.place = place
        self._consumer = consumer
        self.partition = TopicPartition(self.input_topic, place.partition)
        name = f"{self.stage}-{place.partition}"
        producer = place.connection.producer(transactional_id=f"{place.group}-{name}", transaction_timeout_ms=60_000)
        self._transactions = Transactions(producer, consumer, self.partition)
        self.store = Store(place.state_dir / name)
        self._check_identity()
        committed, self.said = self._transactions.committed()
        self.position = self._open()
        if committed is None and self.position > 0:
            raise StateError(
                f"{self.store.path}: the state stands at offset {self.position} of {self.partition.topic}, but group "
                f"{place.group} has committed nothing: its offsets have expired or the topic was made anew. "
                "Delete the state folder to begin again from the log, or use the group that wrote it"
            )
        self._committed = committed or 0
        if self.position > self._committed:
            raise StateError(
                f"{self.store.path}: the state stands at offset {self.position} of {self.partition.topic}, ahead of "
                f"the commit at {self._committed}: it belongs to another group. Delete the folder, or use that group"
            )
        if not self.said.sequences:
            self.said.sequences = [0] * place.config.partitions
        consumer.seek(self.partition, self.position)
        self._heard = time.monotonic()
        self._framed = 0.0

    @abstractmethod
    def _open(self) -> int:
        """Make the stage over the store; returns the offset of its next unread record."""

    @abstractmethod
    def _take(self, records: Sequence[ConsumerRecord], offset: int) -> Outbox:
        """Let the stage take records, and gather what it puts out. offset: of the record after the last."""

    @abstractmethod
    def _changes(self) -> dict[bytes, bytes | None]:
        """The stage's changes since the last call."""

    def take(self, records: Sequence[ConsumerRecord], group: Any) -> None:
        """Take records in offset order; those that were committed before, in silence."""
        again = [record for record in records if record.offset < self._committed]
        new = records[len(again) :] if again else records
        if again:
            sequences = list(self.said.sequences)
            self._take(again, again[-1].offset + 1)
            self.said.sequences = sequences
            self.position = again[-1].offset + 1
            self.store.write(self._changes())
        if new:
            self._heard = time.monotonic()
            self._commit(self._take(new, new[-1].offset + 1), new[-1].offset + 1, group)

    def _commit(self, outbox: Outbox, offset: int, group: Any) -> None:
        self._transactions.commit(outbox, offset, self.said, group)
        self._committed = self.position = offset
        self.store.write(self._changes())

    def _fresh(self, records: Sequence[_Record], emitted: int) -> Sequence[_Record]:
        """Those of the stage's newest records that no commit holds yet. emitted: the stage's count, these included."""
        known = self.said.emitted - (emitted - len(records))
        self.said.emitted = max(self.said.emitted, emitted)
        return records[known:] if known > 0 else records

    def close(self) -> None:
        """Close store and producer."""
        self.store.close()
        self._transactions.close()

    def _check_identity(self) -> None:
        place = self.place
        ours = StoreIdentity(
            place.cluster, self.input_topic, self.stage, place.partition, msgspec.to_builtins(place.config)
        )
        (stored,) = self.store.get_many([_IDENTITY])
        if stored is None:
            self.store.write({_IDENTITY: msgspec.msgpack.encode(ours)})
            return
        theirs = msgspec.msgpack.decode(stored, type=StoreIdentity)
        if theirs != ours:
            differing = [
                f"{name} is {getattr(ours, name)!r}, was {getattr(theirs, name)!r}"
                for name in StoreIdentity.__struct_fields__
                if getattr(ours, name) != getattr(theirs, name)
            ]
            raise StateError(
                f"{self.store.path}: the state is of another system: {'; '.join(differing)}. Use another --state-dir"
            )


class SessionsTask(Task):
    """Stage `sessions` over one partition of the events."""

    stage = "sessions"

    def __init__(self, place: Place, consumer: KafkaConsumer, label: Callable[[str, Impression], None]) -> None:
        self.input_topic = place.topics.events
        self._label = label
        self._told_end = False
        super().__init__(place, consumer)

    def _open(self) -> int:
        self._sessions = Sessions(self.place.config, self.store, self._label)
        return self._sessions.position

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._sessions.take_changes()

    def _take(self, records: Sequence[ConsumerRecord], offset: int) -> Outbox:
        lines = [record.value or b"" for record in records]
        batch = MicroBatch(decode_lines(lines), lines, [record.offset for record in records])
        activities, refused = self._sessions.process(batch, offset)
        outbox = Outbox()
        if offset > self._committed:
            self._bury(outbox, refused, {record.offset: record for record in records})
        self._frame(outbox, activities)
        return outbox

    def keep_up(self, group: Any, *, idle_after: float) -> None:
        """Say that there is nothing unread, once; the merges behind hold nobody up for this task's sake then."""
        if time.monotonic() - self._heard >= idle_after and self.position >= self._committed:
            self._heard = float("inf")
            outbox = Outbox()
            self._frame(outbox, [], always=True, idle=True)
            self._commit(outbox, self._committed, group)

    def end(self, group: Any, *, flush: bool) -> None:
        """The log has been read to its end: tell everyone. flush: it has ended for good, so close every page."""
        if self.said.ended or self._told_end:
            return
        outbox = Outbox()
        activities = self._sessions.flush() if flush else []
        self.said.ended, self._told_end = flush, True
        self._frame(outbox, activities, always=True, idle=not flush, ended=True)
        self._commit(outbox, self._committed, group)

    def _frame(
        self,
        outbox: Outbox,
        activities: Sequence[Activity],
        *,
        always: bool = False,
        idle: bool = False,
        ended: bool = False,
    ) -> None:
        """Frames to every partition that has records for it; to all of them once a second, for the watermark."""
        partitions = self.place.config.partitions
        records: list[list[bytes]] = [[] for _ in range(partitions)]
        activities = self._fresh(activities, self._sessions.outcomes.impressions.emitted)
        for partition, activity in zip(
            partitions_of([activity.query for activity in activities], partitions), activities, strict=True
        ):
            records[partition].append(encode_record(activity))
        if time.monotonic() - self._framed >= _FRAME_EVERY:
            always = True
        if always:
            self._framed = time.monotonic()
        for partition, encoded in enumerate(records):
            if not encoded and not always:
                continue
            parts = encode_frames(
                self.place.partition,
                self.said.sequences[partition],
                encoded,
                END_OF_TIME if self.said.ended else self._sessions.watermark,
                idle=idle,
                ended=ended,
                outcomes={self.place.partition: self._sessions.outcomes},
            )
            self.said.sequences[partition] += len(parts)
            for part in parts:
                outbox.add(self.place.topics.activity, partition, part)

    def _bury(self, outbox: Outbox, refused: Sequence[Refused], records: dict[int, ConsumerRecord]) -> None:
        for letter in refused:
            record = records.get(letter.place)
            headers = [
                ("reason", letter.reason.encode()),
                ("detail", letter.detail.encode()),
                ("topic", self.partition.topic.encode()),
                ("partition", str(self.partition.partition).encode()),
                ("offset", str(letter.place).encode()),
            ]
            key = record.key if record is not None else None
            outbox.add(self.place.topics.dead_letters, None, letter.value, key, headers)


class QueriesTask(Task):
    """Stage `queries` over one partition of the activity."""

    stage = "queries"

    def __init__(self, place: Place, consumer: KafkaConsumer) -> None:
        self.input_topic = place.topics.activity
        super().__init__(place, consumer)

    @property
    def ended(self) -> bool:
        """Whether every source has been read to its end and all of it has been put out."""
        return self._queries.ended

    def _open(self) -> int:
        self._queries = Queries(self.place.config, self.store, self.place.config.partitions)
        return self._queries.offset

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._queries.take_changes()

    def take(self, records: Sequence[ConsumerRecord], group: Any) -> None:
        """Take frames, then whatever more is due than memory had room for."""
        super().take(records, group)
        while self._queries.behind:
            self._commit(self._put_out(), self._committed, group)

    def _take(self, records: Sequence[ConsumerRecord], offset: int) -> Outbox:
        for record in records:
            where = f"{record.topic} partition {record.partition} offset {record.offset}"
            frame = decode_frame(record.value or b"", where)
            self._queries.take_frame(frame, [decode_activity(activity) for activity in frame.records])
        self._queries.offset = offset
        return self._put_out()

    def _put_out(self) -> Outbox:
        examples = self._fresh(self._queries.process(), self._queries.emitted)
        outbox = Outbox()
        ended = self.ended and not self.said.ended
        if not examples and not ended and time.monotonic() - self._framed < _FRAME_EVERY:
            return outbox
        self._framed = time.monotonic()
        self.said.ended = self.ended
        parts = encode_frames(
            self.place.partition,
            self.said.sequences[0],
            [encode_record(example) for example in examples],
            self._queries.watermark,
            ended=self.ended,
            outcomes=self._queries.outcomes,
        )
        self.said.sequences[0] += len(parts)
        for part in parts:
            outbox.add(self.place.topics.examples, self.place.partition, part)
        return outbox
