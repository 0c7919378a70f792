"""Sends records to `model-quality` on the side: the trainer neither waits for the broker nor fails with it."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from kafka.errors import KafkaError

from prectr.stream.kafka.client.client import Connection, let_go
from prectr.stream.kafka.client.topics import Topics

PARTITION: Final = 0
"""The records are few, and whoever reads this partition sees the whole cluster, each run in its order."""
_BLOCK_MS: Final = 200
_REQUEST_MS: Final = 10_000
_DELIVERY_MS: Final = 30_000
_AGAIN_SECONDS: Final = 5.0
_SAY_EVERY: Final = 60.0
_CLOSE_SECONDS: Final = 2
_log = logging.getLogger(__name__)


def _uncompressed(connection: Connection) -> Connection:
    settings = {name: value for name, value in connection.settings.items() if name != "compression_type"}
    return replace(connection, settings=settings)


class QualityTopic:
    """One parcel of records at a time: `send`, then `arrived` until it is known what has become of it."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        """Raises PrectrError: no broker."""
        self._topic = topics.quality
        self._connection = connection
        self._sent: list[Any] = []
        self._failed: Exception | None = None
        self._again = 0.0
        self._said = float("-inf")
        # The records are packed already, and the monitor's client unpacks no codec that another may have asked for.
        self._producer = _uncompressed(connection).producer(
            compression_type=None,
            max_block_ms=_BLOCK_MS,
            request_timeout_ms=_REQUEST_MS,
            delivery_timeout_ms=_DELIVERY_MS,
        )

    @property
    def ready(self) -> bool:
        """Whether a parcel may be sent: none is on the way, and the last failure is some seconds old."""
        return not self._sent and time.monotonic() >= self._again

    def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Send records (key, value); returns at once."""
        self._failed = None
        try:
            for key, value in records:
                self._sent.append(self._producer.send(self._topic, key=key, value=value, partition=PARTITION))
        except KafkaError as error:
            self._failed = error

    def arrived(self) -> bool | None:
        """Whether the parcel on the way has arrived whole; None while that is open. Asked once, it is forgotten."""
        if not all(future.is_done for future in self._sent):
            return None
        failed = self._failed or next((future.exception for future in self._sent if future.exception), None)
        self._sent = []
        if failed is None:
            return True
        self._again = time.monotonic() + _AGAIN_SECONDS
        if time.monotonic() - self._said >= _SAY_EVERY:
            self._said = time.monotonic()
            _log.warning(
                "%s: quality cannot be published (%s): it is kept and tried again; training goes on. Where the topic "
                "is missing, `prectr topics create` makes it",
                self._topic,
                self._connection.told(failed),
            )
        return False

    def close(self) -> None:
        """Leave the broker."""
        let_go(self._producer, _CLOSE_SECONDS)
