"""Sends records to `model-quality` in the background: the trainer neither waits for the broker nor fails with it."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from kafka.errors import KafkaError

from prectr.stream.kafka.client.client import Connection, close_producer
from prectr.stream.kafka.client.topics import Topics

PARTITION: Final = 0
"""The only partition used: the records are few, and its reader sees the whole cluster, each run in order."""
_MAX_BLOCK_MS: Final = 200
_REQUEST_TIMEOUT_MS: Final = 10_000
_DELIVERY_TIMEOUT_MS: Final = 30_000
_RETRY_BACKOFF: Final = 5.0
_LOG_INTERVAL: Final = 60.0
_CLOSE_TIMEOUT: Final = 2
_log = logging.getLogger(__name__)


def _uncompressed(connection: Connection) -> Connection:
    settings = {name: value for name, value in connection.settings.items() if name != "compression_type"}
    return replace(connection, settings=settings)


class QualityProducer:
    """Sends one batch of records at a time: `send`, then `take_result` until that has an outcome."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        """Connect.

        Raises:
            PrectrError: the broker does not answer.
        """
        self._topic = topics.quality
        self._connection = connection
        self._futures: list[Any] = []
        self._error: Exception | None = None
        self._retry_at = 0.0
        self._logged_at = float("-inf")
        # The records are compressed already, and the monitor's client does not support every codec that may be set.
        self._producer = _uncompressed(connection).producer(
            compression_type=None,
            max_block_ms=_MAX_BLOCK_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
        )

    @property
    def ready(self) -> bool:
        """Whether a batch may be sent: none is in flight, and the last failure is some seconds ago."""
        return not self._futures and time.monotonic() >= self._retry_at

    def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Send records (key, value) without waiting."""
        self._error = None
        try:
            for key, value in records:
                self._futures.append(self._producer.send(self._topic, key=key, value=value, partition=PARTITION))
        except KafkaError as error:
            self._error = error

    def take_result(self) -> bool | None:
        """Return whether the whole batch was acknowledged, and forget it; None while it is in flight."""
        if not all(future.is_done for future in self._futures):
            return None
        error = self._error or next((future.exception for future in self._futures if future.exception), None)
        self._futures = []
        if error is None:
            return True
        self._retry_at = time.monotonic() + _RETRY_BACKOFF
        if time.monotonic() - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = time.monotonic()
            _log.warning(
                "%s: quality cannot be published (%s): it is kept and sent again, and training continues. If the topic "
                "is missing, create it",
                self._topic,
                self._connection.describe_error(error),
            )
        return False

    def close(self) -> None:
        """Close the producer."""
        close_producer(self._producer, _CLOSE_TIMEOUT)
