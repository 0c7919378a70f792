"""Transactions that are over, and of which a partition was never told.

A broker (Apache Kafka 4.3.0) that is killed between a decision and its markers, and started again, can take a partition
that has no leader yet for a deleted one, and skip its marker ("these partitions are likely deleted already and hence
can be skipped"). The coordinator then says that the transaction is complete, but what the partition holds of it stays
undecided: the group's offset, and no owner of the task could ever go on; or what was put out, and the task's next
transaction would decide of it. What is missing is said here once more, by the task's own producer id: a marker ends all
that the id has left open in a partition.
"""

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from kafka import KafkaProducer
from kafka.admin import TransactionState

from prectr.state.errors import BrokerUnavailableError, StateError
from prectr.stream.kafka.client.client import close_producer
from prectr.stream.kafka.transactions.admin import TransactionAdmin
from prectr.stream.kafka.transactions.producer import (
    MARKER_TIMEOUT,
    CommittedOffsets,
    TransactionalProducer,
    all_partitions,
)

_MARKER_APPLY_TIMEOUT: Final = 2.0
"""Seconds in which a group takes up a marker that has been written."""
_DECISION_TIMEOUT: Final = 30.0
_REISSUE_TIMEOUT: Final = 0.6
"""Seconds in which another owner has told an end once more. To fence it in the middle of that would undo the end."""
_RETRY_BACKOFF: Final = 0.1
_NO_PRODUCER_ID: Final = -1
_log = logging.getLogger(__name__)


class TransactionOutcome(Enum):
    """What the last transaction of a task has left: nothing; an end that is not known everywhere; or no end yet."""

    COMPLETE = "complete"
    COMMITTED = "committed"
    ABORTED = "aborted"
    ONGOING = "open"


_ENDED_OUTCOMES: Final = {
    TransactionState.COMPLETE_COMMIT: TransactionOutcome.COMMITTED,
    TransactionState.COMPLETE_ABORT: TransactionOutcome.ABORTED,
}


def recover_and_open(
    transactional_id: str,
    committed_offsets: CommittedOffsets,
    partition: int,
    producer: KafkaProducer,
    output_topics: Sequence[str],
) -> TransactionalProducer:
    """Fence earlier owners of a task; how its last transaction ended is known everywhere then.

    The group's offset of the partition is decided, and so is what was put out. outputs: topics written to.

    Raises:
        StateError: something is undecided, and how the transaction ended is no longer known.
        KafkaError: the broker does not answer, or the task has gone to another process.
    """
    output_partitions = all_partitions(producer, output_topics)

    def markers_complete(producer_id: int, timeout: float) -> bool:
        return committed_offsets.markers_complete(partition, producer_id, output_partitions, timeout)

    try:
        outcome = _outcome(committed_offsets.transaction_admin, transactional_id, markers_complete)
        if outcome is None:
            raise StateError(
                f"group {committed_offsets.group}: Kafka holds back its offset of {committed_offsets.topic_partition(partition)} or what was put "
                f"out with it, since a transaction of {transactional_id} was left undecided, and no longer says how it "
                "ended. Decide it by hand with Kafka's own `kafka-transactions.sh find-hanging` and `abort`, and start "
                "again"
            )
    except BaseException:
        close_producer(producer, 0.0)
        raise
    transactional_producer = TransactionalProducer(producer, committed_offsets, partition, output_topics)
    try:
        if outcome is TransactionOutcome.ONGOING:
            # To fence its owner has ended it.
            outcome = (
                TransactionOutcome.COMPLETE
                if markers_complete(transactional_producer.producer_id, MARKER_TIMEOUT)
                else TransactionOutcome.ABORTED
            )
        if outcome in {TransactionOutcome.COMMITTED, TransactionOutcome.ABORTED}:
            _log.warning(
                "%s: Kafka has lost the end of a transaction that it calls %s: it is told again",
                transactional_id,
                outcome.value,
                extra={"partition": partition},
            )
            transactional_producer.end_dangling(commit=outcome is TransactionOutcome.COMMITTED)
    except BaseException:
        transactional_producer.close()
        raise
    return transactional_producer


def _outcome(
    admin: TransactionAdmin, transactional_id: str, markers_complete: Callable[[int, float], bool]
) -> TransactionOutcome | None:
    """What the last transaction of an id has left; None where that cannot be known any more.

    It must be asked before the next owner begins, which wipes it out. What is open may be an end that another owner is
    telling once more: it is given the time for that. told: whether a producer id's last end is known everywhere within
    so many seconds.
    """
    started = time.monotonic()
    while True:
        description = admin.describe(transactional_id)
        waited = time.monotonic() - started
        if description is None:
            return TransactionOutcome.COMPLETE if markers_complete(_NO_PRODUCER_ID, MARKER_TIMEOUT) else None
        if description.state in _ENDED_OUTCOMES:
            if markers_complete(description.producer_id, _MARKER_APPLY_TIMEOUT):
                return TransactionOutcome.COMPLETE
            if admin.describe(transactional_id) == description:
                return _ENDED_OUTCOMES[description.state]
        elif description.state in {TransactionState.EMPTY, TransactionState.DEAD}:
            if markers_complete(description.producer_id, _REISSUE_TIMEOUT):
                return TransactionOutcome.COMPLETE
            if waited > _REISSUE_TIMEOUT:
                return None
        elif description.state in {TransactionState.ONGOING, TransactionState.PREPARE_EPOCH_FENCE}:
            open_seconds = time.time() - description.transaction_start_time_ms / 1000
            if max(waited, open_seconds) > _REISSUE_TIMEOUT:
                return TransactionOutcome.ONGOING
        elif waited > _DECISION_TIMEOUT:
            raise BrokerUnavailableError(
                f"the transaction of {transactional_id} has been {description.state.value} for {_DECISION_TIMEOUT:g} s"
            )
        time.sleep(_RETRY_BACKOFF)
