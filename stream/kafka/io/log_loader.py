"""Loads a log into Kafka: each line as it is, keyed by its user."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

import msgspec
from kafka.codec import lz4_encode
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from prectr.state.errors import InputError, PrectrError, UsageError
from prectr.stream.events.contract import Rejected
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection, let_go
from prectr.stream.kafka.client.topics import Topics, max_message_bytes, partition_count
from prectr.stream.readers import LogFile, open_log

_BATCH_LINES: Final = 1024
_PACED_LINES: Final = 32
"""Lines a batch where they are sent at a pace, so that what has become of them is looked at now and then."""
_ON_THE_WAY: Final = 16 << 20
"""Bytes of lines that the broker has not acknowledged, at most: the client itself holds any number."""
_NOTHING: Final = -1
"""Less than the bytes of any lines, be they empty."""
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_DELIVERY_MS: Final = 120_000
_SAY_EVERY: Final = 10.0
_CLOSE_SECONDS: Final = 30
_LISTED: Final = 1_000
_RECORD_ROOM: Final = 256
"""Bytes that a record takes up beside key and value, its batch included."""
_LONGEST_SLEEP: Final = 60.0
_NAP: Final = 0.2
_log = logging.getLogger(__name__)


class RefusedLine(msgspec.Struct, frozen=True):
    """A line that the topic does not take. size: in bytes."""

    file: str
    line: int
    size: int


class Loaded(msgspec.Struct):
    """What has been loaded.

    lines: of the log, from its beginning, that are done with, those passed over included. events: lines that the
    broker has taken. invalid: of these, by reason, those that are no valid events and will be dead letters. refused:
    how many lines are too large for the topic; refused_lines: the first 1,000 of them.
    """

    lines: int = 0
    events: int = 0
    invalid: dict[str, int] = {}
    refused: int = 0
    refused_lines: list[RefusedLine] = []

    def refuse(self, line: RefusedLine) -> None:
        """Count a line that is not taken."""
        self.refused += 1
        if len(self.refused_lines) < _LISTED:
            self.refused_lines.append(line)


class _Sent(msgspec.Struct):
    """Lines on the way. futures: of those sent, with what to say where the broker refuses one."""

    lines: int
    size: int
    futures: list[tuple[Any, RefusedLine]]

    @property
    def arrived(self) -> bool:
        """Whether it is known what has become of each."""
        return all(future.is_done for future, _ in self.futures)

    @property
    def failure(self) -> KafkaError | None:
        """Why the broker has not taken one of them, where that is not its size; others may be on the way still."""
        errors = (future.exception for future, _ in self.futures if future.is_done)
        return next((error for error in errors if error is not None and not isinstance(error, _TOO_LARGE)), None)


def load(
    paths: Sequence[str],
    connection: Connection,
    topics: Topics,
    *,
    speed: float | None = None,
    skip: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Loaded:
    """Send every line of the log to `search-events`.

    speed: event-time seconds a second; None for as fast as it goes. skip: lines of the log to pass over, since they
    are loaded. A user's partition is Kafka's own; a line without a user goes to partition 0. A line that is too large
    for the topic is left out and told; the rest goes on.

    Raises:
        InputError: the log cannot be read on; says how many lines are loaded, and how to go on.
        PrectrError: the broker does not take it; says the same.
    """
    log = open_log(paths)
    loaded = Loaded()
    with ExitStack() as stack:
        loader = _Loader(connection, topics, loaded, stop, speed)
        stack.callback(loader.close)
        try:
            try:
                lines = _BATCH_LINES if speed is None else _PACED_LINES
                for batch in _batches(log, lines, skip, loaded, progress):
                    loader.send(batch)
                    if stop():
                        break
            finally:
                loader.settle(_NOTHING)
        except KafkaError as error:
            raise PrectrError(f"{connection.told(error)}. {_go_on(loaded)}") from error
        except InputError as error:
            raise InputError(f"{error}. {_go_on(loaded)}") from error
    return loaded


def _go_on(loaded: Loaded) -> str:
    return (
        f"The first {loaded.lines:,} lines of the log are loaded: with --skip {loaded.lines} the same command goes on "
        "behind them (what was on the way may be there twice, and counts as duplicate then)"
    )


class _Batch(msgspec.Struct):
    """Lines that follow one another in a file; the first of a file is 1."""

    file: str
    first_line: int
    lines: list[bytes]


def _batches(
    log: Sequence[LogFile], lines: int, skip: int, loaded: Loaded, progress: Callable[[int, int], None]
) -> Iterator[_Batch]:
    """The lines of all files behind the first `skip`."""
    total = sum(file.identity.size for file in log)
    read = 0
    for file in log:
        for found in file.batches(batch_lines=lines):
            over = min(skip, len(found.lines))
            skip -= over
            loaded.lines += over
            if over < len(found.lines):
                yield _Batch(str(file.path), found.first_line + over + 1, found.lines[over:])
            progress(read + file.bytes_read, total)
        read += file.identity.size
    if skip:
        raise UsageError(f"--skip goes {skip:,} lines beyond the end of the log: is it the same log?")


class _Loader:
    """Sends lines, and keeps account of what the broker has taken."""

    def __init__(
        self, connection: Connection, topics: Topics, loaded: Loaded, stop: Callable[[], bool], speed: float | None
    ) -> None:
        self._topic = topics.events
        self._partitions = partition_count(connection, self._topic)
        self._limit = max_message_bytes(connection, self._topic)
        self._lz4 = connection.settings.get("compression_type", "lz4") == "lz4"
        self._loaded = loaded
        self._stop = stop
        self._speed = speed
        self._first: tuple[int, float] | None = None
        self._where = connection.bootstrap
        self._failed = False
        self._on_the_way: deque[_Sent] = deque()
        self._producer = connection.producer(delivery_timeout_ms=max(_DELIVERY_MS, round(connection.wait * 1000)))

    def send(self, batch: _Batch) -> None:
        """Send lines, once there is room for them."""
        events = decode_lines(batch.lines)
        users = [event.user_id for event in events]
        sent = _Sent(len(batch.lines), sum(map(len, batch.lines)), [])
        rows = zip(events, batch.lines, users, partitions_of(users, self._partitions), strict=True)
        for number, (event, line, user, partition) in enumerate(rows, batch.first_line):
            if self._speed is not None and not isinstance(event, Rejected):
                self._keep_pace(event.ts, self._speed)
            key = None if user is None else user.encode()
            what = RefusedLine(batch.file, number, len(line))
            if not self._fits(line, key):
                self._loaded.refuse(what)
                continue
            if isinstance(event, Rejected):
                self._note_invalid(event, what)
            future = self._producer.send(self._topic, value=line, key=key, partition=partition)
            sent.futures.append((future, what))
        self._on_the_way.append(sent)
        self.settle(_ON_THE_WAY)

    def settle(self, room: int) -> None:
        """Take note of what has arrived, and wait until no more than so many bytes are on the way.

        Once the broker has failed, nothing more is waited for.

        Raises:
            KafkaError: the broker has not taken a line.
        """
        while self._on_the_way and not self._failed:
            sent = self._on_the_way[0]
            over = sum(each.size for each in self._on_the_way) > room
            failed = self._await(sent) if over else None
            # Asked first: what arrives between the two questions is looked at the next time.
            arrived = sent.arrived
            if (error := failed or sent.failure) is not None:
                self._failed = True
                raise error
            if not arrived:
                return
            self._on_the_way.popleft()
            self._loaded.lines += sent.lines
            for future, line in sent.futures:
                if future.exception is None:
                    self._loaded.events += 1
                else:
                    self._loaded.refuse(line)

    def close(self) -> None:
        """Leave the broker; what it has not taken is told already."""
        let_go(self._producer, 0 if self._failed else _CLOSE_SECONDS)

    def _await(self, sent: _Sent) -> KafkaError | None:
        """Wait until all have arrived, or until any line on the way has failed; returns why, in that case.

        The client may leave others undecided for good once one has failed.
        """
        begun = time.monotonic()
        for future, _ in sent.futures:
            while not future.is_done:
                with suppress(KafkaError):
                    future.get(timeout=_SAY_EVERY)
                if future.is_done:
                    break
                failures = (each.failure for each in self._on_the_way)
                if (failure := next((found for found in failures if found is not None), None)) is not None:
                    return failure
                _log.warning(
                    "%s: Kafka has not answered for %.0f s, the lines on the way are sent again: %d lines are loaded",
                    self._where,
                    time.monotonic() - begun,
                    self._loaded.lines,
                )
        return None

    def _fits(self, line: bytes, key: bytes | None) -> bool:
        """Whether the topic takes a line; one that it does not would take others with it."""
        if self._limit is None or len(line) + len(key or b"") + _RECORD_ROOM <= self._limit:
            return True
        return self._lz4 and len(lz4_encode(line)) + len(key or b"") + _RECORD_ROOM <= self._limit

    def _note_invalid(self, event: Rejected, line: RefusedLine) -> None:
        invalid = self._loaded.invalid
        invalid[event.reason] = invalid.get(event.reason, 0) + 1
        if event.reason == "too_large" and invalid[event.reason] <= 10:
            _log.warning(
                "%s line %d is over 1 MiB, too large for an event: its first %d bytes go, as a dead letter",
                line.file,
                line.line,
                line.size,
            )

    def _keep_pace(self, ts: int, speed: float) -> None:
        """Sleep until an event is due, for a minute at the most: a clock may have jumped."""
        now = time.monotonic()
        self._first = self._first or (ts, now)
        until = min(self._first[1] + (ts - self._first[0]) / 1000 / speed, now + _LONGEST_SLEEP)
        while not self._stop() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _NAP))
