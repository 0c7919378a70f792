"""Sends a log bit by bit, so that the system is at work whenever a fault hits."""

import math
import time
from pathlib import Path
from typing import Final

from kafka.errors import KafkaError

from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.client import Connection
from prectr.stream.readers import open_log

_EVERY: Final = 0.1
_SHARE: Final = 0.04
"""Of what is left up to the mark, what goes out at a time."""
_DRAIN_SECONDS: Final = 60


class Feed:
    """The lines of a log on their way to a topic, in order, as `prectr load` sends them: keyed by user."""

    def __init__(self, connection: Connection, topic: str, log: Path, partitions: int) -> None:
        # As the program splits it: bytes.splitlines would also do so at each \r.
        lines = [line for file in open_log([str(log)]) for batch in file.batches() for line in batch.lines]
        users = [event.user_id for event in decode_lines(lines)]
        self._records = list(zip(users, lines, partitions_of(users, partitions), strict=True))
        self._topic = topic
        self._producer = connection.producer()
        self._refused: list[BaseException] = []
        self._sent = self._mark = 0
        self._last = 0.0

    @property
    def left(self) -> int:
        """Lines that have not been sent."""
        return len(self._records) - self._sent

    def burst(self, share: float) -> None:
        """Send a share of the log, of 1, at once."""
        self._send(round(share * len(self._records)))
        self._mark = self._sent

    def allow(self, share: float) -> None:
        """Let a share of the log go out over the next few seconds."""
        self._mark = min(self._sent + round(share * len(self._records)), len(self._records))

    def tick(self) -> None:
        """Send what is due. Beyond the mark, a trickle, so that no wait for output is in vain."""
        now = time.monotonic()
        if now - self._last < _EVERY:
            return
        self._last = now
        self._send(max(1, math.ceil((self._mark - self._sent) * _SHARE)))

    def finish(self) -> None:
        """Send the rest, and wait until the broker has all of it."""
        self._send(self.left)
        self._producer.flush(timeout=_DRAIN_SECONDS)
        self.close()
        if self._refused:
            raise AssertionError(f"the broker did not take the log: {self._refused[0]}")

    def close(self) -> None:
        """Leave the broker."""
        try:
            self._producer.close(timeout=5)
        except KafkaError as error:
            self._refused.append(error)

    def _send(self, count: int) -> None:
        for user, line, partition in self._records[self._sent : self._sent + count]:
            key = None if user is None else user.encode()
            self._producer.send(self._topic, value=line, key=key, partition=partition).add_errback(self._refused.append)
        self._sent = min(self._sent + count, len(self._records))
