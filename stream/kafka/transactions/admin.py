"""What the brokers know of transactions: how the last one ended, and which partitions have heard of it (KIP-664)."""

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import TransactionDescription
from kafka.errors import RetriableError, TransactionalIdNotFoundError

from prectr.stream.kafka.client.client import Connection

_ASK_AGAIN: Final = 0.05
_READY_SECONDS: Final = 20.0
_NONE: Final = -1
Answer = TypeVar("Answer")


class Decisions:
    """Asks the brokers about transactions, from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._admin: KafkaAdminClient | None = None

    def last(self, transactional_id: str) -> TransactionDescription | None:
        """The last transaction of an id, or the one that is open; None where there is none, or it is forgotten.

        Raises:
            KafkaError: the broker refuses to say, or does not answer.
        """
        try:
            return self._ask(lambda admin: admin.describe_transactions([transactional_id]))[transactional_id]
        except TransactionalIdNotFoundError:
            return None

    def written(self, producer_id: int, partitions: Iterable[TopicPartition], seconds: float) -> bool:
        """Whether nothing of a producer id is open in any of the partitions, or not for so many seconds.

        The producer must not be writing meanwhile. What is once written stays so.

        Raises:
            KafkaError: the broker refuses to say, or does not answer.
        """
        left = list(partitions)
        until = time.monotonic() + seconds
        while left:
            left = self._open(producer_id, left)
            if left:
                if time.monotonic() > until:
                    return False
                time.sleep(_ASK_AGAIN)
        return True

    def _open(self, producer_id: int, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Those of the partitions in which a transaction of the producer's is open."""
        found = self._ask(lambda admin: admin.describe_producers(partitions))
        return [
            partition
            for partition, producers in found.items()
            if any(
                each.producer_id == producer_id and each.current_transaction_start_offset != _NONE
                for each in producers.active_producers
            )
        ]

    def _ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        until = time.monotonic() + _READY_SECONDS
        while True:
            try:
                with self._lock:
                    if self._admin is None:
                        self._admin = self._connection.admin()
                    return question(self._admin)
            except RetriableError:
                # A broker that has just started has no coordinator, and partitions without a leader.
                if time.monotonic() > until:
                    raise
            time.sleep(_ASK_AGAIN)

    def close(self) -> None:
        """Leave the broker."""
        with self._lock:
            if self._admin is not None:
                self._admin.close()
