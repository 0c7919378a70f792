"""One task's transactions: outputs, dead letters and the input offset are committed atomically."""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.kafka.client.client import close_producer
from prectr.stream.kafka.client.client_internals import add_to_transaction, producer_id
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata, CommittedOffsets
from prectr.stream.kafka.transactions.deadline import call_with_timeout

_FLUSH_TIMEOUT: Final = 20
_REQUEST_TIMEOUT: Final = 20.0
_CLOSE_TIMEOUT: Final = 5
_MIN_BROKER_RESTART: Final = 0.5
"""Seconds since the last commit within which no broker can have stopped and started again."""
MARKER_TIMEOUT: Final = 5.0
"""Seconds within which a broker writes the markers of an ended transaction, and only then calls it complete."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class PendingOutput:
    """Messages of a transaction: (topic, partition or None, key, value, headers)."""

    messages: list[tuple[str, int | None, bytes | None, bytes, list[tuple[str, bytes]]]] = field(default_factory=list)

    def add(
        self,
        topic: str,
        partition: int | None,
        value: bytes,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Add a message; without a partition, its key decides."""
        self.messages.append((topic, partition, key, value, list(headers)))


class _MissingMarkersError(Exception):
    """The markers of the previous transaction are incomplete, although the next one has begun."""


class TransactionalProducer:
    """The transactional producer of one task.

    Created when the task is assigned: this fences the previous owner and ends its open transaction. The committed
    offset must be read only afterwards.
    """

    def __init__(
        self, producer: KafkaProducer, committed_offsets: CommittedOffsets, number: int, output_topics: Sequence[str]
    ) -> None:
        """Fence the previous owner; `number` is the input partition.

        Raises:
            KafkaError: the broker does not answer.
        """
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
        """Commit a task's outputs together with its input offset.

        1. Write the markers of the previous transaction again if a broker lost any of them.
        2. Begin the transaction and add its output partitions; the coordinator has then ended the previous one.
        3. Check the previous markers once more, while nothing has been sent that would have to be aborted.
        4. Send the outputs and dead letters.
        5. Add the input offset; the group's metadata fences a process that has lost the partition.
        6. Check that the broker acknowledged every record.
        7. Commit.

        On failure the transaction ends in one of three ways: with missing markers (3) it is committed empty, since
        an abort would undo the previous one; after a timeout its outcome is unknown, and the next owner ends it;
        otherwise it is aborted. The task must be opened again in each case.

        Args:
            offset: offset of the next unread record.
            group_metadata: the group's metadata as of the poll that returned the records.

        Raises:
            KafkaError: the transaction was not committed, or its outcome is unknown.
        """
        # 1. Markers of the previous transaction
        if not self._previous_markers_complete():
            self._reissue_markers()
        # 2. Begin
        self._producer.begin_transaction()
        try:
            partitions = self._target_partitions(output) or self._written_partitions
            add_to_transaction(self._producer, partitions, _REQUEST_TIMEOUT)
            # 3. Markers, once more
            self._require_previous_markers()
            # 4. Outputs
            futures = self._send(output)
            # 5. Offset
            self._add_offset(offset, commit_metadata, group_metadata)
            # 6. Acknowledgements
            _raise_unacknowledged(futures)
            # 7. Commit
            failpoint(Failpoint.BEFORE_COMMIT)
            call_with_timeout(_REQUEST_TIMEOUT, self._producer.commit_transaction)
        except _MissingMarkersError:
            self._end_in_all_partitions(commit=True)
            raise KafkaError(f"{self._missing_markers_message}: they have been written again") from None
        except KafkaTimeoutError:
            # Unknown outcome: a close that waits for the transaction might never return.
            self._close_timeout = 0.0
            raise
        except BaseException:
            self._abort()
            raise
        self._written_partitions, self._ended_at = partitions, time.monotonic()

    @property
    def producer_id(self) -> int:
        """The id that the transaction coordinator gave to the producer."""
        return producer_id(self._producer)

    def _require_previous_markers(self) -> None:
        try:
            complete = self._previous_markers_complete()
        except KafkaError:
            # Unknown: committing this transaction empty is right in either case.
            complete = False
        if not complete:
            raise _MissingMarkersError

    def _send(self, output: PendingOutput) -> list[Any]:
        futures = [
            self._producer.send(topic, value=value, key=key, partition=partition, headers=headers)
            for topic, partition, key, value, headers in output.messages
        ]
        self._producer.flush(timeout=_FLUSH_TIMEOUT)
        failpoint(Failpoint.AFTER_PRODUCE)
        return futures

    def _add_offset(self, offset: int, commit_metadata: CommitMetadata, group_metadata: Any) -> None:
        metadata = msgspec.json.encode(commit_metadata).decode()
        offsets = {self._topic_partition: OffsetAndMetadata(offset, metadata, commit_metadata.leader_epoch)}
        call_with_timeout(_REQUEST_TIMEOUT, lambda: self._producer.send_offsets_to_transaction(offsets, group_metadata))

    def _abort(self) -> None:
        # If this fails, another process owns the task or will own it: the broker then ends the transaction.
        with suppress(KafkaError):
            call_with_timeout(_CLOSE_TIMEOUT, self._producer.abort_transaction)

    def _previous_markers_complete(self) -> bool:
        """Return whether all partitions have the markers of the previous transaction.

        A broker that is killed between the decision and the markers may never write them (see `hanging`). The markers
        of the next transaction would then end both, and its abort would undo what was committed: the offset, or the
        outputs. The check is skipped within `_MIN_BROKER_RESTART` of the commit.
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
            "%s: writing them again",
            self._missing_markers_message,
            extra={"partition": self._topic_partition.partition},
        )
        self.end_dangling(commit=True)
        self._ended_at = None

    @property
    def _missing_markers_message(self) -> str:
        return (
            f"the broker lost markers of the last transaction for {self._topic_partition.topic} partition "
            f"{self._topic_partition.partition}"
        )

    def end_dangling(self, *, commit: bool) -> None:
        """End what the task's producer id has left open, in the offset and in all partitions of the output topics.

        Sends no record and no offset: an empty transaction whose markers end the earlier one as well.

        Raises:
            KafkaError: the transaction was not ended; the task must be opened again.
        """
        self._producer.begin_transaction()
        self._end_in_all_partitions(commit=commit)

    def _end_in_all_partitions(self, *, commit: bool) -> None:
        """End the open, empty transaction in the offset and in all partitions of the output topics."""
        producer = self._producer
        add_to_transaction(producer, all_partitions(producer, self._output_topics), _REQUEST_TIMEOUT)
        call_with_timeout(
            _REQUEST_TIMEOUT, lambda: producer.send_offsets_to_transaction({}, self._committed_offsets.group)
        )
        call_with_timeout(_REQUEST_TIMEOUT, producer.commit_transaction if commit else producer.abort_transaction)

    def _target_partitions(self, output: PendingOutput) -> set[TopicPartition]:
        """Return the partitions of the messages; all of the topic's partitions where the key decides."""
        named = {TopicPartition(topic, number) for topic, number, *_ in output.messages if number is not None}
        keyed = {topic for topic, number, *_ in output.messages if number is None}
        return named | all_partitions(self._producer, keyed)

    def close(self) -> None:
        """Close the producer."""
        close_producer(self._producer, self._close_timeout)


def _raise_unacknowledged(futures: Iterable[Any]) -> None:
    for future in futures:
        if not future.succeeded():
            raise future.exception or KafkaTimeoutError("a record was not acknowledged in time")


def all_partitions(producer: KafkaProducer, topics: Iterable[str]) -> set[TopicPartition]:
    """Return all partitions of the topics."""
    return {TopicPartition(topic, number) for topic in topics for number in producer.partitions_for(topic)}
