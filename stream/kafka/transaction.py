"""One task's transactions: outputs, dead letters and the offset of the next unread record, all or nothing."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Final

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from state.errors import StateError
from state.points import at_point
from stream.kafka.client import Connection, let_go

_NO_EPOCH: Final = -1
_FLUSH_SECONDS: Final = 20
_ANSWER_SECONDS: Final = 20.0
_CLOSE_SECONDS: Final = 5
_RESTART: Final = 0.5
"""Seconds since the last commit in which no broker can have been away and come back."""
_MARKERS: Final = 5.0


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
    """The end of the transaction before has not reached the group's offsets."""


class Transactions:
    """The transactional producer of one task; whoever has lost the task is fenced.

    Made when the task is assigned, which ends a dead owner's open transaction; only then are its offsets read.
    """

    def __init__(
        self, producer: KafkaProducer, offsets: CommittedOffsets, number: int, outputs: Sequence[str] = ()
    ) -> None:
        """number: the partition that is read. outputs: topics written to."""
        self._producer = producer
        self._offsets = offsets
        self._partition = offsets.partition(number)
        self._outputs = outputs
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
        producer.begin_transaction()
        try:
            sent = [
                producer.send(topic, value=value, key=key, partition=partition, headers=headers)
                for topic, partition, key, value, headers in outbox.messages
            ]
            metadata = msgspec.json.encode(said).decode()
            producer.flush(timeout=_FLUSH_SECONDS)
            at_point("after_produce")
            if not self._last_was_told():
                raise _NotToldError
            offsets = {self._partition: OffsetAndMetadata(offset, metadata, _NO_EPOCH)}
            _within(_ANSWER_SECONDS, lambda: producer.send_offsets_to_transaction(offsets, group))
            for future in sent:
                if not future.succeeded():
                    raise future.exception or KafkaTimeoutError("a record was not taken in time")
            at_point("before_commit")
            _within(_ANSWER_SECONDS, producer.commit_transaction)
            self._ended = time.monotonic()
        except _NotToldError:
            _within(_CLOSE_SECONDS, producer.abort_transaction)
            self.settle(self._outputs, self._offsets.group, commit=True)
            raise KafkaError(
                f"the broker had lost the end of the last transaction for {self._partition.topic} partition "
                f"{self._partition.partition}: it has been told again"
            ) from None
        except KafkaTimeoutError:
            # It may be waiting for ever, and would wait on: whoever opens the task next ends the transaction.
            self._close_seconds = 0.0
            raise
        except BaseException:
            with suppress(KafkaError):
                # Where this fails, another has the task or will have it: the broker ends the transaction for it.
                _within(_CLOSE_SECONDS, producer.abort_transaction)
            raise

    def _last_was_told(self) -> bool:
        """Whether the group's offsets know the end of our last transaction, before another can undo it.

        A broker that is killed between a decision and its markers may never tell it (see `undecided`); the markers of
        the next transaction would then end both, and if that one is aborted, the committed offset is gone, while what
        was put out with it stays. No broker is away and back in less than `_RESTART`.
        """
        if self._ended is None or time.monotonic() - self._ended < _RESTART:
            return True
        return self._offsets.decided(self._partition.partition, _MARKERS)

    def settle(self, outputs: Sequence[str], group: str, *, commit: bool) -> None:
        """End whatever the task's producer id has left open, in all partitions that it can have written to.

        outputs: topics written to; the group's offsets are among what is ended. Sends no record and no offset.

        Raises:
            KafkaError: it was not done; another is for a new owner.
        """
        producer = self._producer
        producer.begin_transaction()
        for topic in outputs:
            for number in producer.partitions_for(topic):
                # The library adds partitions with their first record alone, and there is none.
                producer._transaction_manager.maybe_add_partition_to_transaction(TopicPartition(topic, number))
        _within(_ANSWER_SECONDS, lambda: producer.send_offsets_to_transaction({}, group))
        _within(_ANSWER_SECONDS, producer.commit_transaction if commit else producer.abort_transaction)

    def close(self) -> None:
        """Let the producer go."""
        let_go(self._producer, self._close_seconds)


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
