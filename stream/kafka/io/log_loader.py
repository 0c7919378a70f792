"""Loads a log into Kafka: each line unchanged, keyed by its user."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

import msgspec
from kafka.codec import lz4_encode
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from prectr.state.errors import InputError, PrectrError, Remedy, UsageError
from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection, close_producer
from prectr.stream.kafka.client.topics import Topics, fetch_max_message_bytes, partition_count
from prectr.stream.readers import LogBatch, LogFile, LogPart, Order, open_log, read_in_order

_MAX_BATCH_LINES: Final = 1024
_PACED_BATCH_LINES: Final = 32
"""Lines per batch when the load is paced: acknowledgements are checked once per batch."""
_MAX_IN_FLIGHT_BYTES: Final = 16 << 20
"""Limit on unacknowledged bytes of lines; the client itself has none."""
_NONE_IN_FLIGHT: Final = -1
"""Less than the bytes of any batch, even of empty lines."""
_SIZE_ERRORS: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_DELIVERY_TIMEOUT_MS: Final = 120_000
_LOG_INTERVAL: Final = 10.0
_CLOSE_TIMEOUT: Final = 30
_MAX_LISTED: Final = 1_000
_RECORD_OVERHEAD: Final = 256
"""Bytes of a record besides key and value, including its batch header."""
_LONGEST_SLEEP: Final = 60.0
_SLEEP: Final = 0.2
_log = logging.getLogger(__name__)


class OversizedLine(msgspec.Struct, frozen=True):
    """A line that is too large for the topic; size in bytes."""

    file: str
    line: int
    size: int


class LoadResult(msgspec.Struct):
    """Result of a load.

    Attributes:
        lines: lines from the start of the log that are finished, skipped ones included.
        events: lines that the broker has acknowledged.
        invalid: number of those that are not valid events, and will become dead letters, by reason.
        oversized: number of lines that are too large for the topic.
        oversized_lines: the first 1,000 of them.
    """

    lines: int = 0
    events: int = 0
    invalid: dict[str, int] = {}
    oversized: int = 0
    oversized_lines: list[OversizedLine] = []

    def add_oversized(self, line: OversizedLine) -> None:
        """Count a line that is too large."""
        self.oversized += 1
        if len(self.oversized_lines) < _MAX_LISTED:
            self.oversized_lines.append(line)


class _InFlightBatch(msgspec.Struct):
    """Lines that are being sent; each future with the line's description, should it be too large."""

    lines: int
    size: int
    futures: list[tuple[Any, OversizedLine]]

    @property
    def acknowledged(self) -> bool:
        """Whether the broker has answered for each line."""
        return all(future.is_done for future, _ in self.futures)

    @property
    def failure(self) -> KafkaError | None:
        """First error of a line other than its size; further lines may still be in flight."""
        errors = (future.exception for future, _ in self.futures if future.is_done)
        return next((error for error in errors if error is not None and not isinstance(error, _SIZE_ERRORS)), None)


def load(
    paths: Sequence[str],
    connection: Connection,
    topics: Topics,
    *,
    speed: float | None = None,
    skip_lines: int = 0,
    order: Order = "time",
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> LoadResult:
    """Send every line of the log to `search-events`.

    A user's partition is that of Kafka's default partitioner; a line without a user goes to partition 0. A line that
    is too large for the topic is skipped and listed in the result.

    Args:
        speed: seconds of event time per second; None for no limit.
        skip_lines: lines from the start of the log that are loaded already.
        order: of the lines of several files: merged by event time, or file after file as given.
        progress: called with the bytes read, and their total.

    Raises:
        InputError: the log cannot be read further; the message has the number of lines loaded.
        PrectrError: the broker rejects a line or does not answer; the message has the number of lines loaded.
    """
    log = open_log(paths)
    result = LoadResult()
    with ExitStack() as stack:
        loader = _Loader(connection, topics, result, stop, speed)
        stack.callback(loader.close)
        try:
            try:
                lines = _MAX_BATCH_LINES if speed is None else _PACED_BATCH_LINES
                batches = read_in_order([LogPart(file, index) for index, file in enumerate(log)], lines, order=order)
                for batch in _batches(log, batches, skip_lines, result, progress):
                    loader.send(batch)
                    if stop():
                        break
            finally:
                loader.await_in_flight(_NONE_IN_FLIGHT)
        except KafkaError as error:
            raise PrectrError(f"{connection.describe_error(error)}. {_loaded(result)}", Remedy.SKIP_LOADED) from error
        except InputError as error:
            raise InputError(f"{error}. {_loaded(result)}", Remedy.SKIP_LOADED) from error
    return result


def _loaded(result: LoadResult) -> str:
    return f"The first {result.lines} lines of the log are loaded"


class _Batch(msgspec.Struct):
    """Consecutive lines of the log; places: the file and the number, from 1, of each."""

    lines: list[bytes]
    places: list[tuple[str, int]]


def _batches(
    log: Sequence[LogFile],
    batches: Iterable[LogBatch],
    skip_lines: int,
    result: LoadResult,
    progress: Callable[[int, int], None],
) -> Iterator[_Batch]:
    """Yield the lines of all files after the first `skip_lines`."""
    total = sum(file.identity.size for file in log)
    for found in batches:
        skipped = min(skip_lines, len(found.lines))
        skip_lines -= skipped
        result.lines += skipped
        if skipped < len(found.lines):
            places = [
                (str(log[run.file].path), run.first_line + number)
                for run in found.runs
                for number in range(1, run.lines + 1)
            ]
            yield _Batch(found.lines[skipped:], places[skipped:])
        progress(sum(file.bytes_read for file in log), total)
    if skip_lines:
        raise UsageError(f"{skip_lines:,} of the lines to skip are beyond the end of the log: is it the same log?")


class _Loader:
    """Sends lines, and counts those that the broker has acknowledged."""

    def __init__(
        self, connection: Connection, topics: Topics, result: LoadResult, stop: Callable[[], bool], speed: float | None
    ) -> None:
        self._topic = topics.events
        self._partitions = partition_count(connection, self._topic)
        self._limit = fetch_max_message_bytes(connection, self._topic)
        self._lz4 = connection.settings.get("compression_type", "lz4") == "lz4"
        self._result = result
        self._stop = stop
        self._speed = speed
        self._pace_origin: tuple[int, float] | None = None
        self._bootstrap = connection.bootstrap
        self._failed = False
        self._in_flight: deque[_InFlightBatch] = deque()
        self._producer = connection.producer(
            delivery_timeout_ms=max(_DELIVERY_TIMEOUT_MS, round(connection.connect_timeout * 1000))
        )

    def send(self, batch: _Batch) -> None:
        """Send lines, and wait until not too many bytes are in flight."""
        events = decode_lines(batch.lines)
        users = [event.user_id for event in events]
        in_flight = _InFlightBatch(len(batch.lines), sum(map(len, batch.lines)), [])
        rows = zip(events, batch.lines, users, partitions_of(users, self._partitions), strict=True)
        for (file, number), (event, line, user, partition) in zip(batch.places, rows, strict=True):
            if self._speed is not None and not isinstance(event, InvalidEvent):
                self._wait_for_pace(event.ts, self._speed)
            key = None if user is None else user.encode()
            description = OversizedLine(file, number, len(line))
            if not self._fits(line, key):
                self._result.add_oversized(description)
                continue
            if isinstance(event, InvalidEvent):
                self._count_invalid(event, description)
            future = self._producer.send(self._topic, value=line, key=key, partition=partition)
            in_flight.futures.append((future, description))
        self._in_flight.append(in_flight)
        self.await_in_flight(_MAX_IN_FLIGHT_BYTES)

    def await_in_flight(self, max_bytes: int) -> None:
        """Count acknowledged batches, and wait until at most `max_bytes` are in flight.

        Returns at once after an earlier failure.

        Raises:
            KafkaError: a line was not delivered.
        """
        while self._in_flight and not self._failed:
            oldest = self._in_flight[0]
            over_limit = sum(each.size for each in self._in_flight) > max_bytes
            failed = self._await_batch(oldest) if over_limit else None
            # Before the failure: an answer that arrives between the two checks is handled in the next call.
            acknowledged = oldest.acknowledged
            if (error := failed or oldest.failure) is not None:
                self._failed = True
                raise error
            if not acknowledged:
                return
            self._in_flight.popleft()
            self._result.lines += oldest.lines
            for future, line in oldest.futures:
                if future.exception is None:
                    self._result.events += 1
                else:
                    self._result.add_oversized(line)

    def close(self) -> None:
        """Close the producer; failed lines have been reported already."""
        close_producer(self._producer, 0 if self._failed else _CLOSE_TIMEOUT)

    def _await_batch(self, batch: _InFlightBatch) -> KafkaError | None:
        """Wait for all lines of a batch; returns the first error of any line in flight.

        After a failure, the client may never complete the futures of other lines.
        """
        started = time.monotonic()
        for future, _ in batch.futures:
            while not future.is_done:
                with suppress(KafkaError):
                    future.get(timeout=_LOG_INTERVAL)
                if future.is_done:
                    break
                failures = (in_flight.failure for in_flight in self._in_flight)
                if (failure := next((found for found in failures if found is not None), None)) is not None:
                    return failure
                _log.warning(
                    "%s: Kafka has not answered for %.0f s: sending the lines in flight again; %d lines are loaded",
                    self._bootstrap,
                    time.monotonic() - started,
                    self._result.lines,
                )
        return None

    def _fits(self, line: bytes, key: bytes | None) -> bool:
        """Return whether a line fits the topic; an oversized one would fail the other lines of its batch."""
        if self._limit is None or len(line) + len(key or b"") + _RECORD_OVERHEAD <= self._limit:
            return True
        return self._lz4 and len(lz4_encode(line)) + len(key or b"") + _RECORD_OVERHEAD <= self._limit

    def _count_invalid(self, event: InvalidEvent, line: OversizedLine) -> None:
        invalid = self._result.invalid
        invalid[event.reason] = invalid.get(event.reason, 0) + 1
        if event.reason == "too_large" and invalid[event.reason] <= 10:
            _log.warning(
                "%s line %d is over 1 MiB, too large for an event: its %d bytes will become a dead letter",
                line.file,
                line.line,
                line.size,
            )

    def _wait_for_pace(self, ts: int, speed: float) -> None:
        """Sleep until an event is due, at most a minute: event times may be wrong."""
        now = time.monotonic()
        self._pace_origin = self._pace_origin or (ts, now)
        deadline = min(self._pace_origin[1] + (ts - self._pace_origin[0]) / 1000 / speed, now + _LONGEST_SLEEP)
        while not self._stop() and (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(remaining, _SLEEP))
