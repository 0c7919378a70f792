"""A task of a stage on Kafka: state and log brought together, then exactly once from there on."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import StateError
from prectr.state.failpoints import at_point
from prectr.state.snapshot_storage import Location
from prectr.state.snapshots import Snapshots
from prectr.state.snapshotter import SNAPSHOT_EVERY, Snapshotter
from prectr.state.store import Store, StoreFigures, StoreOptions
from prectr.stream.config import PipelineConfig
from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import LogEnds, Span
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.task_metrics import StageCounts, Stopwatch
from prectr.stream.kafka.tasks.task_status import TaskFacts
from prectr.stream.kafka.transactions.hanging import open_transactions
from prectr.stream.kafka.transactions.producer import Committed, CommittedOffsets, Outbox

IDENTITY_KEY: Final = b"i"
FRAME_EVERY: Final = 1.0
"""Seconds between frames that carry only a watermark."""
_COMMIT_SECONDS: Final = 10.0
_ASK_AGAIN: Final = 0.2
_TRANSACTION_MS: Final = 60_000
_REQUEST_MS: Final = 10_000
_BLOCK_MS: Final = 20_000
_WRITE_RECORDS: Final = 32_768
_WRITE_SECONDS: Final = 2.0
"""How far the state may lag behind the commit: what changes again within that is written once, and a restart takes
that much again in silence."""
_ASK_STORE_SECONDS: Final = 10.0
"""RocksDB takes half a millisecond to tell how it does."""
_STORE: Final = StoreOptions(counted=True)
_log = logging.getLogger(__name__)


class StoreIdentity(msgspec.Struct, frozen=True):
    """What a state folder belongs to; refused where any of it differs. topic_id: of the topic that is read."""

    cluster: str
    topic: str
    topic_id: str
    stage: str
    partition: int
    config: dict[str, Any]


_decode_identity: Final = msgspec.msgpack.Decoder(StoreIdentity).decode
"""Made at once: msgspec 0.22 crashes where two threads are the first to decode a type."""


class SnapshotSettings(msgspec.Struct, frozen=True):
    """Where snapshots of the state go, and every how many seconds."""

    location: Location
    every: float = SNAPSHOT_EVERY


class Place(msgspec.Struct, frozen=True):
    """Where a task stands: everything that it needs to be opened. topic_id: of the topic that it reads."""

    connection: Connection
    topics: Topics
    group: str
    partition: int
    config: PipelineConfig
    state_dir: Path
    cluster: str
    topic_id: str
    snapshots: SnapshotSettings | None


class Task(ABC):
    """Reads one partition, in transactions. State may lag behind the commit and never runs ahead of it.

    Opened, it first takes the records between its store and the commit again, in silence: their outputs are
    committed already. What the stage did in a transaction that failed is never written: the task is closed and opened
    anew.
    """

    stage: str
    input_topic: str

    def __init__(self, place: Place, log_ends: LogEnds, offsets: CommittedOffsets) -> None:
        """Open the store and fence earlier owners.

        The task is to be given the records from `position` on.

        Raises:
            StateError: the store belongs to something else, or does not fit the commit or the log.
            KafkaError: the task has gone to another process, or the broker does not answer.
        """
        self.place = place
        self.lag: int | None = None
        """Records of the partition that have not been taken yet; told by whoever reads it."""
        self._opened = time.monotonic()
        self._restored: float | None = None
        self._records = self._replayed = 0
        self._batches, self._commits = Stopwatch(), Stopwatch()
        self._counts: StageCounts | None = None
        self._figures: StoreFigures | None = None
        self._asked = float("-inf")
        self._emitted = 0
        self.partition = TopicPartition(self.input_topic, place.partition)
        self.name = f"{self.stage}-{place.partition}"
        self.log = logging.LoggerAdapter(_log, {"stage": self.stage, "partition": place.partition})
        """What is logged of the task names its stage and partition."""
        self._identity = StoreIdentity(
            place.cluster,
            self.input_topic,
            place.topic_id,
            self.stage,
            place.partition,
            msgspec.to_builtins(place.config),
        )
        transactional_id = f"{place.group}-{self.name}"
        producer = place.connection.producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=_TRANSACTION_MS,
            request_timeout_ms=_REQUEST_MS,
            max_block_ms=_BLOCK_MS,
        )
        self._transactions = open_transactions(
            transactional_id, offsets, place.partition, producer, self._output_topics
        )
        self._snapshotter: Snapshotter | None = None
        self._unwritten = 0
        self._written = time.monotonic()
        self._ahead = False
        try:
            self.store = Store(place.state_dir / self.name, _STORE)
        except BaseException:
            self._transactions.close()
            raise
        try:
            self._check_identity()
            self.position = self._open()
            if place.snapshots is not None:
                self._take_up_snapshots(place.snapshots)
            self._begin(log_ends, offsets)
            self._ask_store()
        except BaseException:
            self.close()
            raise
        self._heard = time.monotonic()
        self._framed = 0.0

    def _take_up_snapshots(self, settings: SnapshotSettings) -> None:
        """Put the newest snapshot in the place of the store, where it is further on; take snapshots from now on."""
        snapshots = Snapshots(settings.location, self.name, self._identity)
        newest = snapshots.newest()
        if newest is not None and newest.offset > self.position:
            self.store.close()
            try:
                restored = snapshots.restore(self.store.path, newer_than=self.position)
            finally:
                self.store = Store(self.store.path, _STORE)
            if restored is not None:
                self.log.info("%s: restored from the snapshot at offset %d", self.name, restored)
            self._check_identity()
            self.position = self._open()
        self._snapshotter = Snapshotter(snapshots, self.store, settings.every)

    def _begin(self, log_ends: LogEnds, offsets: CommittedOffsets) -> None:
        """Bring store, commit and log together."""
        committed = offsets.of(self.place.partition)
        until = time.monotonic() + _COMMIT_SECONDS
        while committed is not None and committed[0] < self.position and time.monotonic() < until:
            # A broker that has just come back may have answered a commit that it shows only a moment later.
            time.sleep(_ASK_AGAIN)
            committed = offsets.of(self.place.partition)
        # Only now: a process that slept between the two would find the log shorter than what others have committed.
        span = log_ends.spans([self.partition])[self.partition]
        self._check_commit(committed, span)
        self.said = committed[1] if committed else Committed(self.place.topic_id, began=span.first)
        self._committed: int = committed[0] if committed else span.first
        self.position = max(self.position, self.said.began)
        if not self.said.sequences:
            self.said.sequences = [0] * self._outputs
        self._emitted = self.said.emitted
        if self.position == self._committed:
            self._reached()

    def _reached(self) -> None:
        """The state has reached the commit: from here on its counts are those of what is committed."""
        self._caught_up()
        self._restored = time.monotonic() - self._opened
        if self._replayed:
            self.log.info(
                "%s: has taken %d records again in %.1f s, and goes on from the commit at offset %d",
                self.name,
                self._replayed,
                self._restored,
                self._committed,
            )
        self._counts = self._counted()

    def facts(self) -> TaskFacts:
        """How the task does; from any thread."""
        watermark = self._watermark
        return TaskFacts(
            stage=self.stage,
            partition=self.place.partition,
            position=self.position,
            behind=max(0, self._committed - self.position),
            emitted=self._emitted,
            watermark=watermark if BEFORE_TIME < watermark < END_OF_TIME else None,
            snapshots=None if self._snapshotter is None else self._snapshotter.progress,
            lag=self.lag,
            replayed=self._replayed,
            restored=self._restored,
            records=self._records,
            batches=self._batches.durations(),
            transactions=self._commits.durations(),
            counts=self._counts,
            store=self._figures,
        )

    @property
    @abstractmethod
    def _watermark(self) -> int:
        """Event time up to which the task is done (ms)."""

    @abstractmethod
    def _open(self) -> int:
        """Make the stage over the store; returns the offset of its next unread record."""

    @property
    @abstractmethod
    def _output_topics(self) -> Sequence[str]:
        """The topics that the task writes to."""

    @property
    @abstractmethod
    def _outputs(self) -> int:
        """How many partitions the task writes frames to."""

    @abstractmethod
    def _repeat(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        """Let the stage take records whose outputs are committed. offset: of the record after the last."""

    @abstractmethod
    def _caught_up(self) -> None:
        """The state has reached the commit."""

    @abstractmethod
    def _take(self, records: Sequence[ConsumerRecord], offset: int) -> Outbox:
        """Let the stage take new records, and gather what it puts out. offset: of the record after the last."""

    @abstractmethod
    def _counted(self) -> StageCounts:
        """What the stage has counted so far; nothing in it may change afterwards."""

    @abstractmethod
    def _changes(self) -> dict[bytes, bytes | None]:
        """The stage's changes since the last call."""

    def take(self, records: Sequence[ConsumerRecord], group: Any) -> None:
        """Take records in offset order; those that were committed before, in silence.

        Raises:
            StateError: the log no longer holds what comes next, or the state does not fit what was committed.
            KafkaError: the transaction failed or its outcome is unknown; open the task anew.
        """
        again = [record for record in records if record.offset < self._committed]
        new = records[len(again) :] if again else records
        if again:
            offset = again[-1].offset + 1
            self._ahead = True
            self._repeat(again, offset)
            self._replayed += len(again)
            self._settled(offset, len(again))
            if offset == self._committed:
                self._reached()
        if new:
            self._heard = time.monotonic()
            offset = new[-1].offset + 1
            self._transact(lambda: self._take(new, offset), offset, group, len(new))
            self._records += len(new)
            self._batches.add(time.monotonic() - self._heard)

    def _transact(self, act: Callable[[], Outbox], offset: int, group: Any, records: int = 0) -> None:
        """Let the stage act, and commit what it puts out with the offset of the next unread record."""
        self._ahead = True
        outbox = act()
        began = time.monotonic()
        self._transactions.commit(outbox, offset, self.said, group)
        at_point("after_commit")
        self._commits.add(time.monotonic() - began)
        self._committed, self._emitted = offset, self.said.emitted
        self._counts = self._counted()
        self._settled(offset, records)

    def _settled(self, offset: int, records: int) -> None:
        """The state is no further than the commit: write it, or let it lag a little."""
        self.position = offset
        self._ahead = False
        self._unwritten += 1 + records
        if self._unwritten > _WRITE_RECORDS or self._must_write:
            self._write()
        else:
            self.write_if_due()

    def write_if_due(self) -> None:
        """Write what has changed, where that was some time ago."""
        if self._unwritten and not self._ahead and time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def _write(self) -> None:
        self.store.write(self._changes())
        self._unwritten = 0
        self._written = time.monotonic()
        at_point("after_write")
        if self._written - self._asked >= _ASK_STORE_SECONDS:
            self._ask_store()
        if self._snapshotter is not None and self._snapshotter.due():
            self._snapshotter.take(self.position)

    def _ask_store(self) -> None:
        self._figures = self.store.figures()
        self._asked = time.monotonic()

    @property
    def _must_write(self) -> bool:
        """Whether the stage can only go on once its changes are in the store."""
        return False

    def close(self) -> None:
        """Close store and producer; a snapshot under way is given a moment to end."""
        try:
            if self._unwritten and not self._ahead:
                self._write()
        finally:
            if self._snapshotter is not None:
                self._snapshotter.close()
            self.store.close()
            self._transactions.close()

    def _check_commit(self, committed: tuple[int, Committed] | None, span: Span) -> None:
        path, topic, group = (
            self.store.path,
            f"{self.partition.topic} partition {self.place.partition}",
            self.place.group,
        )
        if committed is None:
            if self.position > 0:
                raise StateError(
                    f"{path}: the state stands at offset {self.position} of {topic}, but group {group} has committed "
                    "nothing: its offsets have expired, or it is not the group that wrote the state. Use that group, "
                    "or begin again: other --topic-prefix, --group-prefix and --state-dir, and load the log anew"
                )
            return
        offset, said = committed
        if said.topic != self.place.topic_id:
            raise StateError(
                f"group {group} has committed offset {offset} of an earlier {topic}, which was deleted and made anew: "
                "use another --group-prefix and --state-dir"
            )
        if self.position > offset:
            raise StateError(
                f"{path}: the state stands at offset {self.position} of {topic}, ahead of the commit of group {group} "
                f"at {offset}: another group wrote it. Use that group, or another --state-dir"
            )
        if span.end < offset:
            raise StateError(
                f"{topic}: group {group} has committed offset {offset}, but the log ends at {span.end}: the broker has "
                "lost records. Begin again with other --topic-prefix, --group-prefix and --state-dir, and load the "
                "log anew"
            )
        if max(self.position, said.began) < span.first:
            raise StateError(lost(topic, max(self.position, said.began), span.first))

    def _check_identity(self) -> None:
        ours = self._identity
        (stored,) = self.store.get_many([IDENTITY_KEY])
        if stored is None:
            self.store.write({IDENTITY_KEY: msgspec.msgpack.encode(ours)})
            return
        try:
            theirs = _decode_identity(stored)
        except msgspec.MsgspecError as error:
            raise StateError(
                f"{self.store.path}: the state is of another version of this program: delete the folder to rebuild it "
                "from the log"
            ) from error
        if theirs != ours:
            raise StateError(
                f"{self.store.path}: the state is of another system: {'; '.join(_differences(ours, theirs))}. "
                "Use another --state-dir, or the settings that it was made with"
            )


def lost(topic: str, wanted: int, first: int) -> str:
    """What to say where the log no longer holds the next record."""
    return (
        f"{topic}: offset {wanted} is next, but the log begins at {first}: retention has removed what was never read "
        "or is needed to rebuild the state. Nothing is skipped: bring back a --state-dir that is further on, or begin "
        "again with other --topic-prefix, --group-prefix and --state-dir, and load the log anew"
    )


def _differences(ours: StoreIdentity, theirs: StoreIdentity) -> list[str]:
    """What differs, in words; of the configuration only the settings that do."""
    found = []
    for name in StoreIdentity.__struct_fields__:
        mine, other = getattr(ours, name), getattr(theirs, name)
        if name == "config":
            found += [
                f"{key} is {mine.get(key)!r}, was {other.get(key)!r}"
                for key in sorted(mine.keys() | other.keys())
                if mine.get(key) != other.get(key)
            ]
        elif mine != other:
            found.append(f"{name} is {mine!r}, was {other!r}")
    return found
