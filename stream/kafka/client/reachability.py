"""For how long the broker has not answered this process, as its metrics report it.

Long-lived consumers ask for metadata every two seconds, in a thread of the client library. So an outage is noticed
whatever the process is doing, with no connection or request of its own. An answer counts if it comes from an address
that the brokers advertise: where only the bootstrap address answers, nothing can be read or written.
"""

import time
from threading import Lock
from typing import Final
from weakref import WeakSet

from kafka import KafkaConsumer

from prectr.stream.kafka.client.client_internals import answered_at

METADATA_MAX_AGE_MS: Final = 2_000
"""Milliseconds between two requests for metadata of a watched consumer."""
_TOLERANCE: Final = 10.0
"""Seconds without an answer that are no outage: a new leader is elected, or the broker pauses."""


class _Reachability:
    """Which consumers tell, and what they have told; a consumer that is closed and made anew ends no outage."""

    def __init__(self) -> None:
        self._watched: WeakSet[KafkaConsumer] = WeakSet()
        self._answered_at: float | None = None
        self._lock = Lock()

    def watch(self, consumer: KafkaConsumer) -> None:
        """Let a consumer tell whether the broker answers."""
        with self._lock:
            self._watched.add(consumer)
            if self._answered_at is None:
                self._answered_at = time.monotonic()

    def unreachable_seconds(self) -> float | None:
        """Return the seconds since a broker last answered any of them; None if there was none."""
        with self._lock:
            if self._answered_at is None:
                return None
            self._answered_at = max(self._answered_at, *map(answered_at, self._watched), float("-inf"))
            return time.monotonic() - self._answered_at


_process: Final = _Reachability()


def watch(consumer: KafkaConsumer) -> None:
    """Let a consumer with this `metadata_max_age_ms` tell whether the broker answers."""
    _process.watch(consumer)


def broker_unreachable_seconds() -> float | None:
    """Return the seconds since the broker last answered this process, 0 if it answers; None if nothing was watched.

    One consumer that is answered is enough: one that waits for its turn does not make an outage.
    """
    seconds = _process.unreachable_seconds()
    return seconds if seconds is None or seconds > _TOLERANCE else 0.0
