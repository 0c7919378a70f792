"""Transactions that are over, and of which a partition was never told.

A broker (Apache Kafka 4.3.0) that is killed between a decision and its markers, and started again, can take a partition
that has no leader yet for a deleted one, and skip its marker ("these partitions are likely deleted already and hence
can be skipped"). The coordinator then says that the transaction is complete, but the group's offsets stay undecided for
good, and no owner of the task could ever go on. What is missing is said here once more, by the task's own producer id:
a marker ends all that the id has left open in a partition.
"""

import logging
import time
from collections.abc import Sequence
from typing import Final

from kafka import KafkaProducer
from kafka.admin import TransactionState
from kafka.errors import TransactionalIdNotFoundError

from state.errors import BrokerAway, StateError
from stream.kafka.client import Connection, let_go
from stream.kafka.transaction import CommittedOffsets, Transactions

_AT_ONCE: Final = 0.5
_MARKERS: Final = 5.0
"""Seconds in which a broker writes the markers of a transaction that is over: it says so only after them."""
_DECISION: Final = 30.0
_TELLING: Final = 0.6
"""Seconds in which another owner has told an end once more. To fence it in the middle of that would undo the end."""
_ASK_AGAIN: Final = 0.1
_OVER: Final = {TransactionState.COMPLETE_COMMIT: True, TransactionState.COMPLETE_ABORT: False}
_log = logging.getLogger(__name__)


def open_transactions(
    connection: Connection,
    transactional_id: str,
    offsets: CommittedOffsets,
    partition: int,
    producer: KafkaProducer,
    outputs: Sequence[str],
) -> Transactions:
    """Fence earlier owners of a task; its group's offset of the partition is decided then. outputs: topics written to.

    Raises:
        StateError: the offset is undecided, and how the transaction ended is no longer known.
        KafkaError: the broker does not answer, or the task has gone to another process.
    """
    try:
        settled = offsets.decided(partition, _AT_ONCE)
        committed = None if settled else _last_decision(connection, transactional_id)
    except BaseException:
        let_go(producer, 0.0)
        raise
    transactions = Transactions(producer, offsets, partition, outputs)
    if settled or offsets.decided(partition, _MARKERS):
        return transactions
    try:
        if committed is None:
            raise StateError(
                f"group {offsets.group}: Kafka holds back its offset of {offsets.partition(partition)}, since a "
                f"transaction of {transactional_id} was left undecided, and no longer says how it ended. Decide it by "
                "hand with Kafka's own `kafka-transactions.sh find-hanging` and `abort`, and start again"
            )
        _log.warning(
            "%s: Kafka has lost the end of a transaction that it calls %s: it is told again",
            transactional_id,
            "committed" if committed else "aborted",
            extra={"partition": partition},
        )
        transactions.settle(outputs, offsets.group, commit=committed)
    except BaseException:
        transactions.close()
        raise
    return transactions


def _last_decision(connection: Connection, transactional_id: str) -> bool | None:
    """Whether the last transaction of an id was committed; None where there is none, or it is not known any more.

    It must be asked before the next owner begins, which wipes it out; one that is still open then ends as aborted. One
    that is open may be an end that another owner is telling once more: it is given the time for that.
    """
    begun = time.monotonic()
    while True:
        try:
            found = connection.ask(lambda admin: admin.describe_transactions([transactional_id]))
        except TransactionalIdNotFoundError:
            return None
        state = found[transactional_id].state
        if state in _OVER:
            return _OVER[state]
        if state in {TransactionState.EMPTY, TransactionState.DEAD}:
            return None
        waited = time.monotonic() - begun
        if state in {TransactionState.ONGOING, TransactionState.PREPARE_EPOCH_FENCE} and waited > _TELLING:
            return False
        if waited > _DECISION:
            raise BrokerAway(f"the transaction of {transactional_id} has been {state.value} for {_DECISION:g} s")
        time.sleep(_ASK_AGAIN)
