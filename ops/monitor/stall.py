"""Notices a Kafka client that reads no more: records are there, and none arrives."""

import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from kafka import TopicPartition

from prectr.state.errors import PrectrError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets

_POLL_INTERVAL: Final = 10.0
_PATIENCE: Final = 30.0
_MAX_PATIENCE: Final = 600.0
_log = logging.getLogger(__name__)


class LagProbe:
    """Asks the broker, in a thread and over a connection of its own, how many records a group has not committed."""

    def __init__(
        self, connection: Connection, group: str, partition: TopicPartition, is_broker_away: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._is_broker_away = is_broker_away
        self._group = group
        self._partition = partition
        self._stop = Event()
        self.lag: int | None = None
        """Records that the group has not committed, as of the last answer; None while the broker does not answer."""

    def __enter__(self) -> "LagProbe":
        """Start asking."""
        Thread(target=self._run, name="lag of the monitor", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_INTERVAL):
            try:
                self.lag = None if self._is_broker_away() else self._ask()
            except PrectrError as error:
                self.lag = None
                _log.debug("the lag is unknown: %s", error)

    def _ask(self) -> int:
        offsets = self._connection.call_admin(lambda admin: admin.list_group_offsets([self._group]))[self._group]
        ends = EndOffsets(self._connection)
        try:
            with self._connection.translate_errors():
                first, end = ends.fetch_ranges([self._partition])[self._partition]
        finally:
            ends.close()
        committed = offsets.get(self._partition)
        return end - (first if committed is None else max(first, committed.offset))


class StallDetector:
    """Decides when a reader stands still; a restart that does not help doubles the time until the next.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._patience = _PATIENCE
        self._received = -1
        self._since = clock()

    def is_stalled(self, received: int, lag: int | None) -> bool:
        """Return whether records have been there for a while and none was received; then the wait starts over.

        Args:
            received: records received so far.
            lag: records that are there and not committed; None if unknown.
        """
        now = self._clock()
        if received != self._received:
            self._received, self._patience = received, _PATIENCE
            self._since = now
        elif not lag:
            self._since = now
        if now - self._since < self._patience:
            return False
        self._since = now
        self._patience = min(2 * self._patience, _MAX_PATIENCE)
        return True
