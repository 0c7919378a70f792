"""One task's transactions: outputs, dead letters and the offset of the next unread record, all or nothing."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Final

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from prectr.state.errors import StateError
from prectr.state.failpoints import at_point
from prectr.stream.kafka.client.client import Connection, let_go
from prectr.stream.kafka.transactions.admin import Decisions

_NO_EPOCH: Final = -1
_FLUSH_SECONDS: Final = 20
_ANSWER_SECONDS: Final = 20.0
_LOOK_AGAIN: Final = 0.002
_CLOSE_SECONDS: Final = 5
_RESTART: Final = 0.5
"""Seconds since the last commit in which no broker can have been away and come back."""
MARKERS_SECONDS: Final = 5.0
"""In which a broker writes the markers of a transaction that is over: it says so only after them."""
_log = logging.getLogger(__name__)


class Committed(msgspec.Struct, array_like=True):
    """What a commit says besides the offset, as its metadata.

    topic: id of the topic that is read. began: offset of the first record ever read. emitted: records put out since
    then. sequences: of the next frame to each output partition. ends: by source, how far it has been read where an
    end was asked for, and the task has told so; -1 where it has not.
    """

    topic: str
    began: int = 0
    emitted: int = 0
    sequences: list[int] = []
    ends: list[int] = []


_decode_committed: Final = msgspec.json.Decoder(Committed).decode
"""Made at once: msgspec 0.22 crashes where two threads are the first to decode a type."""


def read_committed(found: OffsetAndMetadata | None, partition: TopicPartition) -> tuple[int, Committed] | None:
    """Offset of the next unread record and what was said with it; None where nothing was ever committed.

    Raises:
        StateError: the commit is not of this program.
    """
    if found is None or found.offset < 0:
        return None
    try:
        return found.offset, _decode_committed(found.metadata)
    except msgspec.MsgspecError as error:
        raise StateError(
            f"the group's commit for {partition.topic} partition {partition.partition} was not made "
            f"by this program (metadata {found.metadata!r}): use another --group-prefix"
        ) from error


class CommittedOffsets:
    """What a group has committed for a topic, waiting for transactions that are not decided yet; from any thread."""

    def __init__(self, connection: Connection, group: str, topic: str) -> None:
        self.group = group
        self.decisions = Decisions(connection)
        self._topic = topic
        self._lock = Lock()
        # Read committed makes the client ask for stable offsets.
        self._consumer = connection.consumer(group_id=group)

    def partition(self, number: int) -> TopicPartition:
        """A partition of the topic."""
        return TopicPartition(self._topic, number)

    def decided(self, number: int, seconds: float) -> bool:
        """Whether no transaction that is not decided yet holds the offset of a partition back, or not for so long."""
        with self._lock:
            try:
                self._consumer.committed(self.partition(number), metadata=True, timeout_ms=round(seconds * 1000))
            except KafkaTimeoutError:
                return False
        return True

    def told(self, number: int, producer_id: int, written: Iterable[TopicPartition], seconds: float) -> bool:
        """Whether the end of a producer's last transaction is known to the group's offset and where it has written to.

        seconds: how long to wait for each of the two.

        Raises:
            KafkaError: the broker does not answer.
        """
        return self.decided(number, seconds) and self.decisions.written(producer_id, written, seconds)

    def of(self, number: int, seconds: float = _ANSWER_SECONDS) -> tuple[int, Committed] | None:
        """Offset of the next unread record of a partition and what was said with it; None where there is no commit.

        seconds: how long to wait for a transaction that is not decided yet.

        Raises:
            StateError: the commit is not of this program.
            KafkaError: the broker does not answer.
        """
        partition = self.partition(number)
        with self._lock:
            found = self._consumer.committed(partition, metadata=True, timeout_ms=round(seconds * 1000))
        return read_committed(found, partition)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close(timeout_ms=_CLOSE_SECONDS * 1000)
        self.decisions.close()


@dataclass(slots=True)
class Outbox:
    """What a transaction is to send: (topic, partition or None, key, value, headers)."""

    messages: list[tuple[str, int | None, bytes | None, bytes, list[tuple[str, bytes]]]] = field(default_factory=list)

    def add(
        self,
        topic: str,
        partition: int | None,
        value: bytes,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Put a message in; without a partition, the key decides."""
        self.messages.append((topic, partition, key, value, list(headers)))


class _NotToldError(Exception):
    """The end of the transaction before has not reached every partition, and this one's cannot be left as it is."""


class Transactions:
    """The transactional producer of one task; whoever has lost the task is fenced.

    Made when the task is assigned, which ends a dead owner's open transaction; only then are its offsets read.
    """

    def __init__(self, producer: KafkaProducer, offsets: CommittedOffsets, number: int, outputs: Sequence[str]) -> None:
        """number: the partition that is read. outputs: topics written to."""
        self._producer = producer
        self._offsets = offsets
        self._partition = offsets.partition(number)
        self._outputs = outputs
        self._written: set[TopicPartition] = set()
        self._ended: float | None = None
        self._close_seconds: float = _CLOSE_SECONDS
        try:
            producer.init_transactions()
        except BaseException:
            self.close()
            raise

    def commit(self, outbox: Outbox, offset: int, said: Committed, group: Any) -> None:
        """Send everything and commit. group: the group's metadata as of when the records were polled.

        Raises:
            KafkaError: the transaction was aborted, or what became of it is unknown; another is for a new owner.
        """
        producer = self._producer
        if not self._last_was_told():
            self._tell_last()
        producer.begin_transaction()
        try:
            # Once this is answered, the coordinator has ended the last transaction; no record has been sent yet.
            added = self._partitions_of(outbox) or self._written
            self._add(added)
            try:
                told = self._last_was_told()
            except KafkaError:
                # It cannot be told: to end this one as committed, with nothing in it, is right either way.
                told = False
            if not told:
                raise _NotToldError
            sent = [
                producer.send(topic, value=value, key=key, partition=partition, headers=headers)
                for topic, partition, key, value, headers in outbox.messages
            ]
            metadata = msgspec.json.encode(said).decode()
            producer.flush(timeout=_FLUSH_SECONDS)
            at_point("after_produce")
            offsets = {self._partition: OffsetAndMetadata(offset, metadata, _NO_EPOCH)}
            _within(_ANSWER_SECONDS, lambda: producer.send_offsets_to_transaction(offsets, group))
            for future in sent:
                if not future.succeeded():
                    raise future.exception or KafkaTimeoutError("a record was not taken in time")
            at_point("before_commit")
            _within(_ANSWER_SECONDS, producer.commit_transaction)
            self._written = added
            self._ended = time.monotonic()
        except _NotToldError:
            # To abort it would undo the last one.
            self._end_all(commit=True)
            raise KafkaError(f"{self._lost}: it has been told again") from None
        except KafkaTimeoutError:
            # It may be waiting for ever, and would wait on: whoever opens the task next ends the transaction.
            self._close_seconds = 0.0
            raise
        except BaseException:
            with suppress(KafkaError):
                # Where this fails, another has the task or will have it: the broker ends the transaction for it.
                _within(_CLOSE_SECONDS, producer.abort_transaction)
            raise

    @property
    def producer_id(self) -> int:
        """The id that the coordinator has given to the producer."""
        # The library says it nowhere else.
        found: int = self._producer._transaction_manager.producer_id_and_epoch.producer_id
        return found

    def _last_was_told(self) -> bool:
        """Whether the end of our last transaction is known everywhere, before another can undo it.

        A broker that is killed between a decision and its markers may never tell it (see `undecided`); the markers of
        the next transaction would then end both, and if that one is aborted, what was committed is gone: the offset,
        or what was put out with it. No broker is away and back in less than `_RESTART`.
        """
        if self._ended is None or time.monotonic() - self._ended < _RESTART:
            return True
        if not self._offsets.told(self._partition.partition, self.producer_id, self._written, MARKERS_SECONDS):
            return False
        self._ended = None
        return True

    def _tell_last(self) -> None:
        _log.warning("%s: it is told again", self._lost, extra={"partition": self._partition.partition})
        self.settle(commit=True)
        self._ended = None

    @property
    def _lost(self) -> str:
        return (
            f"the broker had lost the end of the last transaction for {self._partition.topic} partition "
            f"{self._partition.partition}"
        )

    def settle(self, *, commit: bool) -> None:
        """End whatever the task's producer id has left open, in all partitions that it can have written to.

        The group's offsets are among what is ended. Sends no record and no offset.

        Raises:
            KafkaError: it was not done; another is for a new owner.
        """
        self._producer.begin_transaction()
        self._end_all(commit=commit)

    def _end_all(self, *, commit: bool) -> None:
        """End the transaction that is begun, and in which nothing has been sent, in all partitions."""
        producer = self._producer
        self._add(partitions_of(producer, self._outputs))
        _within(_ANSWER_SECONDS, lambda: producer.send_offsets_to_transaction({}, self._offsets.group))
        _within(_ANSWER_SECONDS, producer.commit_transaction if commit else producer.abort_transaction)

    def _partitions_of(self, outbox: Outbox) -> set[TopicPartition]:
        """Where messages go to; where a key decides, all partitions of the topic."""
        named = {TopicPartition(topic, number) for topic, number, *_ in outbox.messages if number is not None}
        keyed = {topic for topic, number, *_ in outbox.messages if number is None}
        return named | partitions_of(self._producer, keyed)

    def _add(self, partitions: Iterable[TopicPartition]) -> None:
        """Make partitions part of the transaction; the library does so by itself only with their first record."""
        manager = self._producer._transaction_manager
        for partition in partitions:
            manager.maybe_add_partition_to_transaction(partition)
        until = time.monotonic() + _ANSWER_SECONDS
        self._producer._sender.wakeup()
        while not all(manager.is_partition_added(partition) for partition in partitions):
            if manager.has_error():
                raise manager.last_error
            if time.monotonic() > until:
                raise KafkaTimeoutError(f"no answer in {_ANSWER_SECONDS:g} s")
            time.sleep(_LOOK_AGAIN)

    def close(self) -> None:
        """Let the producer go."""
        let_go(self._producer, self._close_seconds)


def partitions_of(producer: KafkaProducer, topics: Iterable[str]) -> set[TopicPartition]:
    """All partitions of topics."""
    return {TopicPartition(topic, number) for topic in topics for number in producer.partitions_for(topic)}


def _within(seconds: float, act: Callable[[], object]) -> None:
    """Do what the client library would wait for without end where a broker was killed (kafka-python 3.0.12).

    Raises:
        KafkaTimeoutError: it did not end in time, and what became of it is unknown.
    """
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            done.set_exception(error)

    Thread(target=run, name="transaction", daemon=True).start()
    try:
        done.result(seconds)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer in {seconds:g} s") from error
