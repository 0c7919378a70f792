"""Polls a consumer, and tells records that no attempt can read from a fault of the connection."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError, LogTruncationError, UnsupportedCodecError

from prectr.state.errors import StateError
from prectr.stream.kafka.client.topic_changes import TopicWatch

_MAX_ATTEMPTS: Final = 3
"""How often in a row the same records may fail to be parsed: once may be a fault of the connection."""


class RecordFetcher:
    """Polls the consumer of one topic."""

    def __init__(
        self, consumer: KafkaConsumer, topic: str, watch: TopicWatch, positions: Callable[[], Mapping[int, int]]
    ) -> None:
        """positions: returns the offset of the next record by assigned partition, for errors."""
        self._consumer = consumer
        self._topic = topic
        self._watch = watch
        self._positions = positions
        self._failures = 0

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Return what has been fetched.

        Raises:
            StateError: records cannot be parsed, and fetching them again does not help; or records that were read are
                gone.
            KafkaError: another failure; the tasks must be opened again.
        """
        try:
            found: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=timeout_ms)
        except LogTruncationError as error:
            raise self._watch.lost_records_error(error) from error
        except (UnsupportedCodecError, CorruptRecordError) as error:
            self._failures += 1
            if isinstance(error, CorruptRecordError) and self._failures < _MAX_ATTEMPTS:
                raise
            raise self._unreadable_error(error) from error
        self._failures = 0
        return found

    def _unreadable_error(self, error: KafkaError) -> StateError:
        at = ", ".join(f"partition {number} offset {offset}" for number, offset in sorted(self._positions().items()))
        what = (
            "records are compressed with a codec that this process cannot read: install its library (pip install "
            "python-snappy, lz4 or zstandard), or change compression.type of the topic or the producer"
            if isinstance(error, UnsupportedCodecError)
            else "records are corrupt on the broker: their checksum is wrong. Restore the partition from a replica, or "
            "start over from a copy of the log"
        )
        text = " ".join(f"{type(error).__name__} {error}".split())[:200]
        return StateError(f"topic {self._topic}: {what}. Read so far: up to {at} ({text})")
