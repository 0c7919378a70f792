"""Sends a log bit by bit, so that the system is at work whenever a fault hits."""

import math
import time
from pathlib import Path
from typing import Final, Protocol

from kafka.errors import KafkaError

from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection
from prectr.stream.readers import open_log

_INTERVAL: Final = 0.1
_SEND_SHARE: Final = 0.04
"""Of what is left up to the mark, what goes out at a time."""
_DRAIN_SECONDS: Final = 60


class EventFeed(Protocol):
    """Events on their way to a topic."""

    def burst(self, share: float) -> None:
        """Send a share of the log, of 1, at once."""

    def allow(self, share: float) -> None:
        """Let a share of the log go out over the next few seconds."""

    def tick(self) -> None:
        """Send what is due."""

    def pause(self) -> None:
        """Send nothing more by itself, and wait until the broker has all that was sent."""

    def finish(self) -> None:
        """Send what is left, wait until the broker has all of it, and leave the broker."""

    def close(self) -> None:
        """Leave the broker."""

    @property
    def sent_lines(self) -> list[bytes]:
        """Lines that have been sent."""


class LogFeeder:
    """The lines of a log on their way to a topic, in order, as `prectr load` sends them: keyed by user."""

    def __init__(self, connection: Connection, topic: str, log: Path, partitions: int) -> None:
        # As the program splits it: bytes.splitlines would also do so at each \r.
        lines = [line for file in open_log([str(log)]) for batch in file.batches() for line in batch.lines]
        users = [event.user_id for event in decode_lines(lines)]
        self._records = list(zip(users, lines, partitions_of(users, partitions), strict=True))
        self._topic = topic
        self._producer = connection.producer()
        self._send_errors: list[BaseException] = []
        self._sent_count = self._target = 0
        self._last = 0.0
        self._paused = False

    @property
    def remaining(self) -> int:
        """Lines that have not been sent."""
        return len(self._records) - self._sent_count

    @property
    def sent_lines(self) -> list[bytes]:
        """Lines that have been sent."""
        return [line for _, line, _ in self._records[: self._sent_count]]

    def pause(self) -> None:
        """Send nothing more by itself, and wait until the broker has all that was sent."""
        self._paused = True
        self._producer.flush(timeout=_DRAIN_SECONDS)
        self._raise_send_error()

    def burst(self, share: float) -> None:
        """Send a share of the log, of 1, at once."""
        self._send(round(share * len(self._records)))
        self._target = self._sent_count

    def allow(self, share: float) -> None:
        """Let a share of the log go out over the next few seconds."""
        self._target = min(self._sent_count + round(share * len(self._records)), len(self._records))

    def tick(self) -> None:
        """Send what is due. Beyond the mark, a trickle, so that no wait for output is in vain."""
        now = time.monotonic()
        if self._paused or now - self._last < _INTERVAL:
            return
        self._last = now
        self._send(max(1, math.ceil((self._target - self._sent_count) * _SEND_SHARE)))

    def finish(self) -> None:
        """Send the rest, and wait until the broker has all of it."""
        self._send(self.remaining)
        self._producer.flush(timeout=_DRAIN_SECONDS)
        self.close()
        self._raise_send_error()

    def close(self) -> None:
        """Leave the broker."""
        try:
            self._producer.close(timeout=5)
        except KafkaError as error:
            self._send_errors.append(error)

    def _raise_send_error(self) -> None:
        if self._send_errors:
            raise AssertionError(f"the broker did not take the log: {self._send_errors[0]}")

    def _send(self, count: int) -> None:
        for user, line, partition in self._records[self._sent_count : self._sent_count + count]:
            key = None if user is None else user.encode()
            self._producer.send(self._topic, value=line, key=key, partition=partition).add_errback(
                self._send_errors.append
            )
        self._sent_count = min(self._sent_count + count, len(self._records))
