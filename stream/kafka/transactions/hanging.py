"""Recovery of hanging transactions: ended for the coordinator, but without a marker in some partition (KIP-664).

A broker (Apache Kafka 4.3.0) that is killed between a decision and its markers, and started again, can mistake a
partition that has no leader yet for a deleted one, and skip its marker ("these partitions are likely deleted already
and hence can be skipped"). The coordinator then calls the transaction complete, while in the partition it stays open.
If that is the partition of the group's offset, no owner of the task could ever continue; if it is an output partition,
the task's next transaction would decide the outcome. The missing marker is therefore written again under the task's
own producer id: a marker ends everything that the id has left open in a partition.
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
from prectr.stream.kafka.transactions.committed_offsets import CommittedOffsets
from prectr.stream.kafka.transactions.producer import (
    MARKER_TIMEOUT,
    TransactionalProducer,
    all_partitions,
)

_MARKER_APPLY_TIMEOUT: Final = 2.0
"""Seconds within which the group coordinator applies a marker that has been written."""
_DECISION_TIMEOUT: Final = 30.0
"""Seconds within which the coordinator completes a transaction that it is committing or aborting."""
_REISSUE_TIMEOUT: Final = 0.6
"""Seconds within which another owner has written missing markers again; fencing it meanwhile would undo them."""
_UNKNOWN_TIMEOUT: Final = 30.0
"""Seconds after which an outcome counts as lost. Another owner that has just fenced a transaction may be about to write
its markers again, and is slow on a busy machine."""
_RETRY_BACKOFF: Final = 0.1
_NO_PRODUCER_ID: Final = -1
_log = logging.getLogger(__name__)


class TransactionOutcome(Enum):
    """Outcome of a task's last transaction.

    COMPLETE: nothing is left to do. COMMITTED, ABORTED: ended that way, with markers missing. ONGOING: not ended.
    """

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
    """Fence earlier owners of a task, after the last transaction has ended in every partition.

    The group's offset of the partition and the outputs are then final.

    Args:
        partition: the input partition.
        producer: not initialized yet; it is closed on failure.
        output_topics: topics that the task writes to.

    Raises:
        StateError: a transaction hangs, and its outcome is no longer known.
        KafkaError: the broker does not answer, or another process owns the task.
    """
    output_partitions = all_partitions(producer, output_topics)

    def markers_complete(producer_id: int, timeout: float) -> bool:
        return committed_offsets.markers_complete(partition, producer_id, output_partitions, timeout)

    try:
        outcome = _outcome(committed_offsets.transaction_admin, transactional_id, markers_complete)
        if outcome is None:
            raise StateError(
                f"group {committed_offsets.group}: a hanging transaction of {transactional_id} holds back outputs or "
                f"the offset of {committed_offsets.topic_partition(partition)}, and Kafka no longer has its outcome: "
                "end it with Kafka's own `kafka-transactions.sh find-hanging` and `abort`, and start again"
            )
    except BaseException:
        close_producer(producer, 0.0)
        raise
    transactional_producer = TransactionalProducer(producer, committed_offsets, partition, output_topics)
    try:
        if outcome is TransactionOutcome.ONGOING:
            # Fencing its owner has ended it.
            outcome = (
                TransactionOutcome.COMPLETE
                if markers_complete(transactional_producer.producer_id, MARKER_TIMEOUT)
                else TransactionOutcome.ABORTED
            )
        if outcome in {TransactionOutcome.COMMITTED, TransactionOutcome.ABORTED}:
            _log.warning(
                "%s: Kafka lost markers of a transaction that it reports as %s: writing them again",
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
    """Return the outcome of an id's last transaction; None if it is no longer known.

    Must be called before the next owner initializes its producer, which erases the outcome. An open transaction may be
    another owner writing missing markers again: it is given time to finish.

    Args:
        markers_complete: (producer id, seconds) -> whether all markers of its last transaction arrive in that time.
    """
    started = time.monotonic()
    while True:
        description = admin.describe(transactional_id)
        waited = time.monotonic() - started
        if description is None:
            return TransactionOutcome.COMPLETE if markers_complete(_NO_PRODUCER_ID, _UNKNOWN_TIMEOUT) else None
        if description.state in _ENDED_OUTCOMES:
            if markers_complete(description.producer_id, _MARKER_APPLY_TIMEOUT):
                return TransactionOutcome.COMPLETE
            if admin.describe(transactional_id) == description:
                return _ENDED_OUTCOMES[description.state]
        elif description.state in {TransactionState.EMPTY, TransactionState.DEAD}:
            if markers_complete(description.producer_id, _REISSUE_TIMEOUT):
                return TransactionOutcome.COMPLETE
            if waited > _UNKNOWN_TIMEOUT:
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
