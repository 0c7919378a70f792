"""State of transactions at the brokers: outcome of the last one, and partitions where it is still open (KIP-664)."""

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
    """Describes transactions and producers; thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._admin: KafkaAdminClient | None = None

    def describe(self, transactional_id: str) -> TransactionDescription | None:
        """Describe the open or last transaction of an id; None if there is none, or the coordinator has expired it.

        Raises:
            KafkaError: the broker rejects the request, or does not answer.
        """
        try:
            return self._call(lambda admin: admin.describe_transactions([transactional_id]))[transactional_id]
        except TransactionalIdNotFoundError:
            return None

    def wait_until_ended(self, producer_id: int, partitions: Iterable[TopicPartition], timeout: float) -> bool:
        """Wait until a producer id has no open transaction in the partitions; returns False after `timeout` seconds.

        The producer must not write meanwhile. A partition in which the transaction has ended is not checked again.

        Raises:
            KafkaError: the broker rejects the request, or does not answer.
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
        """Return those of the partitions in which the producer has an open transaction."""
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
                # A broker that has just started has no coordinator yet, and partitions without a leader.
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_BACKOFF)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._admin is not None:
                self._admin.close()
