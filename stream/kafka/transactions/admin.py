"""What the brokers know of transactions: how the last one ended, and which partitions have heard of it (KIP-664)."""

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import TransactionDescription
from kafka.errors import RetriableError, TransactionalIdNotFoundError

from prectr.stream.kafka.client.client import Connection

_RETRY_BACKOFF: Final = 0.05
_READY_TIMEOUT: Final = 20.0
_NO_OPEN_TRANSACTION: Final = -1
Result = TypeVar("Result")


class TransactionAdmin:
    """Asks the brokers about transactions, from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._admin: KafkaAdminClient | None = None

    def describe(self, transactional_id: str) -> TransactionDescription | None:
        """The last transaction of an id, or the one that is open; None where there is none, or it is forgotten.

        Raises:
            KafkaError: the broker refuses to say, or does not answer.
        """
        try:
            return self._call(lambda admin: admin.describe_transactions([transactional_id]))[transactional_id]
        except TransactionalIdNotFoundError:
            return None

    def wait_until_ended(self, producer_id: int, partitions: Iterable[TopicPartition], timeout: float) -> bool:
        """Whether nothing of a producer id is open in any of the partitions, or not for so many seconds.

        The producer must not be writing meanwhile. What is once written stays so.

        Raises:
            KafkaError: the broker refuses to say, or does not answer.
        """
        open_partitions = list(partitions)
        deadline = time.monotonic() + timeout
        while open_partitions:
            open_partitions = self._open_partitions(producer_id, open_partitions)
            if open_partitions:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_RETRY_BACKOFF)
        return True

    def _open_partitions(self, producer_id: int, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Those of the partitions in which a transaction of the producer's is open."""
        found = self._call(lambda admin: admin.describe_producers(partitions))
        return [
            partition
            for partition, producers in found.items()
            if any(
                producer.producer_id == producer_id
                and producer.current_transaction_start_offset != _NO_OPEN_TRANSACTION
                for producer in producers.active_producers
            )
        ]

    def _call(self, request: Callable[[KafkaAdminClient], Result]) -> Result:
        deadline = time.monotonic() + _READY_TIMEOUT
        while True:
            try:
                with self._lock:
                    if self._admin is None:
                        self._admin = self._connection.admin()
                    return request(self._admin)
            except RetriableError:
                # A broker that has just started has no coordinator, and partitions without a leader.
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_BACKOFF)

    def close(self) -> None:
        """Leave the broker."""
        with self._lock:
            if self._admin is not None:
                self._admin.close()
