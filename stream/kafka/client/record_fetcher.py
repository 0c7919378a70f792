"""Polls a consumer within a memory limit, and tells records that no attempt can read from a fault of the connection."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError, LogTruncationError, UnsupportedCodecError

from prectr.state.errors import Remedy, StateError
from prectr.stream.kafka.client.topic_changes import TopicWatch

_MAX_ATTEMPTS: Final = 3
"""How often in a row the same records may fail to be parsed: once may be a fault of the connection."""


STEP_RECORDS: Final = 32
"""Records that one call of the consumer may return, its `max_poll_records`. They are decompressed, and may be far
larger than what was fetched: thousands of them do not fit into memory."""
_MAX_POLL_RECORDS: Final = 8_192
_MAX_POLL_BYTES: Final = 16 << 20


class RecordFetcher:
    """Polls the consumer of one topic, in steps."""

    def __init__(
        self, consumer: KafkaConsumer, topic: str, watch: TopicWatch, positions: Callable[[], Mapping[int, int]]
    ) -> None:
        """positions: returns the offset of the next record by assigned partition, for errors."""
        self._consumer = consumer
        self._topic = topic
        self._watch = watch
        self._positions = positions
        self._failures = 0
        self._deferred: KafkaError | None = None
        """What went wrong in a step after the first, to be raised when the records before it have been processed."""

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Return what has been fetched, at most 8,192 records or the step by which they exceed 16 MiB.

        Raises:
            StateError: records cannot be parsed, and fetching them again does not help; or records that were read are
                gone.
            KafkaError: another failure; the tasks must be opened again.
        """
        try:
            if self._deferred is not None:
                error, self._deferred = self._deferred, None
                raise error
            found = self._poll_in_steps(timeout_ms)
        except LogTruncationError as error:
            raise self._watch.lost_records_error(error) from error
        except (UnsupportedCodecError, CorruptRecordError) as error:
            self._failures += 1
            if isinstance(error, CorruptRecordError) and self._failures < _MAX_ATTEMPTS:
                raise
            raise self._unreadable_error(error) from error
        if self._deferred is None:
            self._failures = 0
        return found

    def _poll_in_steps(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Wait for the first records only."""
        found: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=timeout_ms)
        step, records, size = found, 0, 0
        while step:
            for each in step.values():
                records += len(each)
                size += sum(record.serialized_key_size + record.serialized_value_size for record in each)
            if records >= _MAX_POLL_RECORDS or size >= _MAX_POLL_BYTES:
                break
            try:
                step = self._consumer.poll(timeout_ms=0)
            except KafkaError as error:
                self._deferred = error
                break
            for partition, each in step.items():
                found.setdefault(partition, []).extend(each)
        return found

    def _unreadable_error(self, error: KafkaError) -> StateError:
        at = ", ".join(f"partition {number} offset {offset}" for number, offset in sorted(self._positions().items()))
        text = " ".join(f"{type(error).__name__} {error}".split())[:200]
        read = f"Read so far: up to {at} ({text})"
        if isinstance(error, UnsupportedCodecError):
            return StateError(
                f"topic {self._topic}: records are compressed with a codec that this process cannot read. {read}",
                Remedy.INSTALL_CODEC,
            )
        return StateError(
            f"topic {self._topic}: records on the broker are damaged. {read}",
            Remedy.RESTORE_PARTITION,
            Remedy.START_OVER_LIVE,
        )
