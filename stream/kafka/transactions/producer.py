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
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.kafka.client.client import Connection, close_producer
from prectr.stream.kafka.transactions.admin import TransactionAdmin

_NO_LEADER_EPOCH: Final = -1
_FLUSH_TIMEOUT: Final = 20
_REQUEST_TIMEOUT: Final = 20.0
_POLL_INTERVAL: Final = 0.002
_CLOSE_TIMEOUT: Final = 5
_MIN_BROKER_RESTART: Final = 0.5
"""Seconds since the last commit in which no broker can have been away and come back."""
MARKER_TIMEOUT: Final = 5.0
"""In which a broker writes the markers of a transaction that is over: it says so only after them."""
_log = logging.getLogger(__name__)


class CommitMetadata(msgspec.Struct, array_like=True):
    """What a commit says besides the offset, as its metadata.

    topic: id of the topic that is read. began: offset of the first record ever read. emitted: records put out since
    then. sequences: of the next frame to each output partition. ends: by source, how far it has been read where an
    end was asked for, and the task has told so; -1 where it has not.
    """

    topic_id: str
    start_offset: int = 0
    emitted: int = 0
    sequences: list[int] = []
    reached_end_offsets: list[int] = []


_decode_metadata: Final = msgspec.json.Decoder(CommitMetadata).decode
"""Made at once: msgspec 0.22 crashes where two threads are the first to decode a type."""


def decode_commit(
    found: OffsetAndMetadata | None, topic_partition: TopicPartition
) -> tuple[int, CommitMetadata] | None:
    """Offset of the next unread record and what was said with it; None where nothing was ever committed.

    Raises:
        StateError: the commit is not of this program.
    """
    if found is None or found.offset < 0:
        return None
    try:
        return found.offset, _decode_metadata(found.metadata)
    except msgspec.MsgspecError as error:
        raise StateError(
            f"the group's commit for {topic_partition.topic} partition {topic_partition.partition} was not made "
            f"by this program (metadata {found.metadata!r}): use another --group-prefix"
        ) from error


class CommittedOffsets:
    """What a group has committed for a topic, waiting for transactions that are not decided yet; from any thread."""

    def __init__(self, connection: Connection, group: str, topic: str) -> None:
        self.group = group
        self.transaction_admin = TransactionAdmin(connection)
        self._topic = topic
        self._lock = Lock()
        # Read committed makes the client ask for stable offsets.
        self._consumer = connection.consumer(group_id=group)

    def topic_partition(self, number: int) -> TopicPartition:
        """A partition of the topic."""
        return TopicPartition(self._topic, number)

    def is_stable(self, number: int, timeout: float) -> bool:
        """Whether no transaction that is not decided yet holds the offset of a partition back, or not for so long."""
        with self._lock:
            try:
                self._consumer.committed(self.topic_partition(number), metadata=True, timeout_ms=round(timeout * 1000))
            except KafkaTimeoutError:
                return False
        return True

    def markers_complete(
        self, number: int, producer_id: int, partitions: Iterable[TopicPartition], timeout: float
    ) -> bool:
        """Whether the end of a producer's last transaction is known to the group's offset and where it has written to.

        seconds: how long to wait for each of the two.

        Raises:
            KafkaError: the broker does not answer.
        """
        return self.is_stable(number, timeout) and self.transaction_admin.wait_until_ended(
            producer_id, partitions, timeout
        )

    def fetch(self, number: int, timeout: float = _REQUEST_TIMEOUT) -> tuple[int, CommitMetadata] | None:
        """Offset of the next unread record of a partition and what was said with it; None where there is no commit.

        seconds: how long to wait for a transaction that is not decided yet.

        Raises:
            StateError: the commit is not of this program.
            KafkaError: the broker does not answer.
        """
        topic_partition = self.topic_partition(number)
        with self._lock:
            found = self._consumer.committed(topic_partition, metadata=True, timeout_ms=round(timeout * 1000))
        return decode_commit(found, topic_partition)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close(timeout_ms=_CLOSE_TIMEOUT * 1000)
        self.transaction_admin.close()


@dataclass(slots=True)
class PendingOutput:
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


class _MissingMarkersError(Exception):
    """The end of the transaction before has not reached every partition, and this one's cannot be left as it is."""


class TransactionalProducer:
    """The transactional producer of one task; whoever has lost the task is fenced.

    Made when the task is assigned, which ends a dead owner's open transaction; only then are its offsets read.
    """

    def __init__(
        self, producer: KafkaProducer, committed_offsets: CommittedOffsets, number: int, output_topics: Sequence[str]
    ) -> None:
        """number: the partition that is read. outputs: topics written to."""
        self._producer = producer
        self._committed_offsets = committed_offsets
        self._topic_partition = committed_offsets.topic_partition(number)
        self._output_topics = output_topics
        self._written_partitions: set[TopicPartition] = set()
        self._ended_at: float | None = None
        self._close_timeout: float = _CLOSE_TIMEOUT
        try:
            producer.init_transactions()
        except BaseException:
            self.close()
            raise

    def commit(self, output: PendingOutput, offset: int, commit_metadata: CommitMetadata, group_metadata: Any) -> None:
        """Send everything and commit. group: the group's metadata as of when the records were polled.

        Raises:
            KafkaError: the transaction was aborted, or what became of it is unknown; another is for a new owner.
        """
        producer = self._producer
        if not self._previous_markers_complete():
            self._reissue_markers()
        producer.begin_transaction()
        try:
            # Once this is answered, the coordinator has ended the last transaction; no record has been sent yet.
            added = self._target_partitions(output) or self._written_partitions
            self._add_partitions(added)
            try:
                markers_complete = self._previous_markers_complete()
            except KafkaError:
                # It cannot be told: to end this one as committed, with nothing in it, is right either way.
                markers_complete = False
            if not markers_complete:
                raise _MissingMarkersError
            futures = [
                producer.send(topic, value=value, key=key, partition=partition, headers=headers)
                for topic, partition, key, value, headers in output.messages
            ]
            metadata = msgspec.json.encode(commit_metadata).decode()
            producer.flush(timeout=_FLUSH_TIMEOUT)
            failpoint(Failpoint.AFTER_PRODUCE)
            offsets = {self._topic_partition: OffsetAndMetadata(offset, metadata, _NO_LEADER_EPOCH)}
            _with_timeout(_REQUEST_TIMEOUT, lambda: producer.send_offsets_to_transaction(offsets, group_metadata))
            for future in futures:
                if not future.succeeded():
                    raise future.exception or KafkaTimeoutError("a record was not taken in time")
            failpoint(Failpoint.BEFORE_COMMIT)
            _with_timeout(_REQUEST_TIMEOUT, producer.commit_transaction)
            self._written_partitions = added
            self._ended_at = time.monotonic()
        except _MissingMarkersError:
            # To abort it would undo the last one.
            self._end_in_all_partitions(commit=True)
            raise KafkaError(f"{self._missing_markers_message}: it has been told again") from None
        except KafkaTimeoutError:
            # It may be waiting for ever, and would wait on: whoever opens the task next ends the transaction.
            self._close_timeout = 0.0
            raise
        except BaseException:
            with suppress(KafkaError):
                # Where this fails, another has the task or will have it: the broker ends the transaction for it.
                _with_timeout(_CLOSE_TIMEOUT, producer.abort_transaction)
            raise

    @property
    def producer_id(self) -> int:
        """The id that the coordinator has given to the producer."""
        # The library says it nowhere else.
        found: int = self._producer._transaction_manager.producer_id_and_epoch.producer_id
        return found

    def _previous_markers_complete(self) -> bool:
        """Whether the end of our last transaction is known everywhere, before another can undo it.

        A broker that is killed between a decision and its markers may never tell it (see `hanging`); the markers of
        the next transaction would then end both, and if that one is aborted, what was committed is gone: the offset,
        or what was put out with it. No broker is away and back in less than `_MIN_BROKER_RESTART`.
        """
        if self._ended_at is None or time.monotonic() - self._ended_at < _MIN_BROKER_RESTART:
            return True
        if not self._committed_offsets.markers_complete(
            self._topic_partition.partition, self.producer_id, self._written_partitions, MARKER_TIMEOUT
        ):
            return False
        self._ended_at = None
        return True

    def _reissue_markers(self) -> None:
        _log.warning(
            "%s: it is told again", self._missing_markers_message, extra={"partition": self._topic_partition.partition}
        )
        self.end_dangling(commit=True)
        self._ended_at = None

    @property
    def _missing_markers_message(self) -> str:
        return (
            f"the broker had lost the end of the last transaction for {self._topic_partition.topic} partition "
            f"{self._topic_partition.partition}"
        )

    def end_dangling(self, *, commit: bool) -> None:
        """End whatever the task's producer id has left open, in all partitions that it can have written to.

        The group's offsets are among what is ended. Sends no record and no offset.

        Raises:
            KafkaError: it was not done; another is for a new owner.
        """
        self._producer.begin_transaction()
        self._end_in_all_partitions(commit=commit)

    def _end_in_all_partitions(self, *, commit: bool) -> None:
        """End the transaction that is begun, and in which nothing has been sent, in all partitions."""
        producer = self._producer
        self._add_partitions(all_partitions(producer, self._output_topics))
        _with_timeout(_REQUEST_TIMEOUT, lambda: producer.send_offsets_to_transaction({}, self._committed_offsets.group))
        _with_timeout(_REQUEST_TIMEOUT, producer.commit_transaction if commit else producer.abort_transaction)

    def _target_partitions(self, output: PendingOutput) -> set[TopicPartition]:
        """Where messages go to; where a key decides, all partitions of the topic."""
        named = {TopicPartition(topic, number) for topic, number, *_ in output.messages if number is not None}
        keyed = {topic for topic, number, *_ in output.messages if number is None}
        return named | all_partitions(self._producer, keyed)

    def _add_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """Make partitions part of the transaction; the library does so by itself only with their first record."""
        manager = self._producer._transaction_manager
        for partition in partitions:
            manager.maybe_add_partition_to_transaction(partition)
        deadline = time.monotonic() + _REQUEST_TIMEOUT
        self._producer._sender.wakeup()
        while not all(manager.is_partition_added(partition) for partition in partitions):
            if manager.has_error():
                raise manager.last_error
            if time.monotonic() > deadline:
                raise KafkaTimeoutError(f"no answer in {_REQUEST_TIMEOUT:g} s")
            time.sleep(_POLL_INTERVAL)

    def close(self) -> None:
        """Let the producer go."""
        close_producer(self._producer, self._close_timeout)


def all_partitions(producer: KafkaProducer, topics: Iterable[str]) -> set[TopicPartition]:
    """All partitions of topics."""
    return {TopicPartition(topic, number) for topic in topics for number in producer.partitions_for(topic)}


def _with_timeout(timeout: float, call: Callable[[], object]) -> None:
    """Do what the client library would wait for without end where a broker was killed (kafka-python 3.0.12).

    Raises:
        KafkaTimeoutError: it did not end in time, and what became of it is unknown.
    """
    result: Future[object] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            result.set_exception(error)

    Thread(target=run, name="transaction", daemon=True).start()
    try:
        result.result(timeout)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer in {timeout:g} s") from error
