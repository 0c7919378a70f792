"""For how long the broker has not answered this process, as its metrics report it.

Long-lived consumers ask for metadata every two seconds, in a thread of the client library. So an outage is noticed
whatever the process is doing, with no connection or request of its own.
"""

from threading import Lock
from typing import Final
from weakref import WeakSet

from kafka import KafkaConsumer

from prectr.stream.kafka.client.client_internals import is_closed, seconds_since_metadata

METADATA_MAX_AGE_MS: Final = 2_000
"""Milliseconds between two requests for metadata of a watched consumer."""
_TOLERANCE: Final = 10.0
"""Seconds without an answer that are no outage: a new leader is elected, or the broker pauses."""
_watched: Final["WeakSet[KafkaConsumer]"] = WeakSet()
_lock: Final = Lock()


def watch(consumer: KafkaConsumer) -> None:
    """Let a consumer with this `metadata_max_age_ms` tell, until it is closed, whether the broker answers."""
    with _lock:
        _watched.add(consumer)


def broker_unreachable_seconds() -> float | None:
    """Return the seconds since the broker last answered this process, 0 if it answers; None if nothing is watched.

    The smallest of all watched consumers: one that waits for its turn does not make an outage.
    """
    with _lock:
        consumers = list(_watched)
    ages = [seconds_since_metadata(consumer) for consumer in consumers if not is_closed(consumer)]
    if not ages:
        return None
    return min(ages) if min(ages) > _TOLERANCE else 0.0
