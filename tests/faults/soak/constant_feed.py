"""Sends a log of any size at a constant rate, and keeps what was sent for the replay."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection, close_producer
from prectr.stream.readers import open_log

_INTERVAL: Final = 0.05
_MAX_CATCH_UP: Final = 2.0
"""After a pause, at most so many seconds' events go out at a time."""
_DRAIN_SECONDS: Final = 120


class ConstantFeed:
    """Lines of a log on their way to a topic, in order, keyed by user; in bounded memory."""

    def __init__(
        self, connection: Connection, topic: str, *, log: Path, sent: Path, partitions: int, rate: float
    ) -> None:
        """Begin with the first `tick`.

        Args:
            sent: file for the lines that are sent.
            rate: events per second.
        """
        self._producer = connection.producer()
        self._topic = topic
        self._records = _records(log, partitions)
        self._sent = sent.open("wb")
        self._rate = rate
        self._started: float | None = None
        self._ticked_at = 0.0
        self._errors: list[BaseException] = []
        self.sent_count = 0

    def burst(self, share: float) -> None:
        """Nothing: the rate is constant."""

    def allow(self, share: float) -> None:
        """Nothing: the rate is constant."""

    def tick(self) -> None:
        """Send what is due.

        Raises:
            AssertionError: the log is at its end.
        """
        now = time.monotonic()
        if self._started is None:
            self._started = now
        if now - self._ticked_at < _INTERVAL:
            return
        self._ticked_at = now
        due = round((now - self._started) * self._rate) - self.sent_count
        for _ in range(min(due, round(self._rate * _MAX_CATCH_UP))):
            user, line, partition = next(self._records, (None, b"", -1))
            if partition < 0:
                raise AssertionError(f"the log has only {self.sent_count} events")
            key = None if user is None else user.encode()
            self._producer.send(self._topic, value=line, key=key, partition=partition).add_errback(self._errors.append)
            self._sent.write(line + b"\n")
            self.sent_count += 1

    def pause(self) -> None:
        """Wait until the broker has all that was sent."""
        self._producer.flush(timeout=_DRAIN_SECONDS)
        if self._errors:
            raise AssertionError(f"the broker did not take the log: {self._errors[0]}")

    def finish(self) -> None:
        """Send nothing more, and wait until the broker has all that was sent."""
        self.pause()
        self.close()

    def close(self) -> None:
        """Leave the broker."""
        self._sent.close()
        close_producer(self._producer, 5)

    @property
    def sent_lines(self) -> list[bytes]:
        """Lines that have been sent; all of them in memory."""
        self._sent.flush()
        return Path(self._sent.name).read_bytes().splitlines()


def _records(log: Path, partitions: int) -> Iterator[tuple[str | None, bytes, int]]:
    for file in open_log([str(log)]):
        for batch in file.batches():
            users = [event.user_id for event in decode_lines(batch.lines)]
            yield from zip(users, batch.lines, partitions_of(users, partitions), strict=True)
