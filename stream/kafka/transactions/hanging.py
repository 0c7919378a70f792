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

from prectr.state.errors import BrokerAway, StateError
from prectr.stream.kafka.client.client import let_go
from prectr.stream.kafka.transactions.admin import Decisions
from prectr.stream.kafka.transactions.producer import MARKERS_SECONDS, CommittedOffsets, Transactions, partitions_of

_APPLIED: Final = 2.0
"""Seconds in which a group takes up a marker that has been written."""
_DECISION: Final = 30.0
_TELLING: Final = 0.6
"""Seconds in which another owner has told an end once more. To fence it in the middle of that would undo the end."""
_ASK_AGAIN: Final = 0.1
_NOBODY: Final = -1
_log = logging.getLogger(__name__)


class _Last(Enum):
    """What the last transaction of a task has left: nothing; an end that is not known everywhere; or no end yet."""

    SETTLED = "settled"
    COMMITTED = "committed"
    ABORTED = "aborted"
    OPEN = "open"


_OVER: Final = {
    TransactionState.COMPLETE_COMMIT: _Last.COMMITTED,
    TransactionState.COMPLETE_ABORT: _Last.ABORTED,
}


def open_transactions(
    transactional_id: str,
    offsets: CommittedOffsets,
    partition: int,
    producer: KafkaProducer,
    outputs: Sequence[str],
) -> Transactions:
    """Fence earlier owners of a task; how its last transaction ended is known everywhere then.

    The group's offset of the partition is decided, and so is what was put out. outputs: topics written to.

    Raises:
        StateError: something is undecided, and how the transaction ended is no longer known.
        KafkaError: the broker does not answer, or the task has gone to another process.
    """
    written = partitions_of(producer, outputs)

    def told(producer_id: int, seconds: float) -> bool:
        return offsets.told(partition, producer_id, written, seconds)

    try:
        left = _left(offsets.decisions, transactional_id, told)
        if left is None:
            raise StateError(
                f"group {offsets.group}: Kafka holds back its offset of {offsets.partition(partition)} or what was put "
                f"out with it, since a transaction of {transactional_id} was left undecided, and no longer says how it "
                "ended. Decide it by hand with Kafka's own `kafka-transactions.sh find-hanging` and `abort`, and start "
                "again"
            )
    except BaseException:
        let_go(producer, 0.0)
        raise
    transactions = Transactions(producer, offsets, partition, outputs)
    try:
        if left is _Last.OPEN:
            # To fence its owner has ended it.
            left = _Last.SETTLED if told(transactions.producer_id, MARKERS_SECONDS) else _Last.ABORTED
        if left in {_Last.COMMITTED, _Last.ABORTED}:
            _log.warning(
                "%s: Kafka has lost the end of a transaction that it calls %s: it is told again",
                transactional_id,
                left.value,
                extra={"partition": partition},
            )
            transactions.settle(commit=left is _Last.COMMITTED)
    except BaseException:
        transactions.close()
        raise
    return transactions


def _left(decisions: Decisions, transactional_id: str, told: Callable[[int, float], bool]) -> _Last | None:
    """What the last transaction of an id has left; None where that cannot be known any more.

    It must be asked before the next owner begins, which wipes it out. What is open may be an end that another owner is
    telling once more: it is given the time for that. told: whether a producer id's last end is known everywhere within
    so many seconds.
    """
    begun = time.monotonic()
    while True:
        last = decisions.last(transactional_id)
        waited = time.monotonic() - begun
        if last is None:
            return _Last.SETTLED if told(_NOBODY, MARKERS_SECONDS) else None
        if last.state in _OVER:
            if told(last.producer_id, _APPLIED):
                return _Last.SETTLED
            if decisions.last(transactional_id) == last:
                return _OVER[last.state]
        elif last.state in {TransactionState.EMPTY, TransactionState.DEAD}:
            if told(last.producer_id, _TELLING):
                return _Last.SETTLED
            if waited > _TELLING:
                return None
        elif last.state in {TransactionState.ONGOING, TransactionState.PREPARE_EPOCH_FENCE}:
            lasted = time.time() - last.transaction_start_time_ms / 1000
            if max(waited, lasted) > _TELLING:
                return _Last.OPEN
        elif waited > _DECISION:
            raise BrokerAway(f"the transaction of {transactional_id} has been {last.state.value} for {_DECISION:g} s")
        time.sleep(_ASK_AGAIN)
