"""Future events: events ahead of their task's clock, held until the stream has come to their time or they expire."""

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from prectr.state.store import ReadableStore
from prectr.stream.join.event_clock import EventClock

_KEY: Final = b"f"
_AFTER_LAST_KEY: Final = _KEY + b"\xff" * 9


class FutureEvent(msgspec.Struct, array_like=True, gc=False):
    """An event that was ahead when it opened a page, or began to wait for one.

    Attributes:
        pending_id: of that page or click.
        expires_at: progress of the clock at which it is rejected, in ms.
        offset, value: the offset and the bytes of its record, for the dead letter.
    """

    pending_id: int
    ts: int
    expires_at: int
    offset: int
    value: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FutureEvent).decode


class FutureEvents:
    """A task's future events in order of arrival. All of them are in memory; the store has an entry of each."""

    __slots__ = ("_clock", "_deleted_keys", "_events", "_unwritten")

    def __init__(self, store: ReadableStore, clock: EventClock) -> None:
        """Restore the events that the store holds."""
        self._clock = clock
        self._events = deque(_decode(value) for _, value in store.scan(_KEY, _AFTER_LAST_KEY))
        self._unwritten: dict[int, FutureEvent] = {}
        self._deleted_keys: list[bytes] = []

    def __len__(self) -> int:
        return len(self._events)

    @property
    def next_expiry(self) -> int | None:
        """The progress of the clock at which the oldest event expires; None without events."""
        return self._events[0].expires_at if self._events else None

    def ahead_now(self) -> tuple[int, int]:
        """Return how many are ahead of the clock now, and how far the one furthest ahead is, in ms; 0 without one.

        Others wait as well: those that the stream has come to meanwhile, and all that came before the clock settled.
        Reads all of them, for the metrics.
        """
        if not self._clock.has_settled:
            return 0, 0
        ahead = [event.ts for event in self._events if self._clock.is_ahead(event.ts)]
        return len(ahead), self._clock.lead(max(ahead)) if ahead else 0

    def add(self, pending_id: int, ts: int, offset: int, value: bytes) -> None:
        """Hold an event that is ahead now and has become the pending page or click of this id."""
        event = FutureEvent(pending_id, ts, self._clock.next_expiry, offset, value)
        self._events.append(event)
        self._unwritten[pending_id] = event

    def pop_expired(self) -> Iterator[FutureEvent]:
        """Remove the events whose hour has passed, oldest first; yield those that are still ahead."""
        events, progress = self._events, self._clock.progress
        while events and events[0].expires_at <= progress:
            event = self._pop()
            if self._clock.is_ahead(event.ts):
                yield event

    def clear(self) -> None:
        """Remove all events: the log has ended, and their pages close."""
        while self._events:
            self._pop()

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call."""
        changes: dict[bytes, bytes | None] = {
            _key(pending_id): _encode(event) for pending_id, event in self._unwritten.items()
        }
        self._unwritten.clear()
        changes.update(dict.fromkeys(self._deleted_keys))
        self._deleted_keys.clear()
        return changes

    def _pop(self) -> FutureEvent:
        event = self._events.popleft()
        if self._unwritten.pop(event.pending_id, None) is None:
            self._deleted_keys.append(_key(event.pending_id))
        return event


def _key(pending_id: int) -> bytes:
    return _KEY + pending_id.to_bytes(8, "big")
