"""The event clock of one task: its watermark, and the quarantine of events with future timestamps."""

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

MIN_WATERMARK: Final = -(1 << 62)
"""The watermark of a task that has received no valid record."""
MAX_WATERMARK: Final = 1 << 62
"""After every event: the watermark of a source that has ended for good."""


class FutureEvent(msgspec.Struct, array_like=True):
    """An event further ahead of its task's event time than the allowed skew, until another user confirms its time.

    Attributes:
        expires_at: watermark at which it is rejected, in ms.
        offset, value: the offset and the bytes of its record, for the dead letter.
        pending_page_id, pending_click_id: the pending page or click that it created, if any.
        confirmed: whether an event of another user had a timestamp close to it.
    """

    ts: int
    user_id: str
    expires_at: int
    offset: int
    value: bytes
    pending_page_id: int | None = None
    pending_click_id: int | None = None
    confirmed: bool = False


class _UserFutureEvents:
    """The quarantined events of one user, and the range of their times, which excludes most users at once."""

    __slots__ = ("earliest", "events", "latest")

    def __init__(self) -> None:
        self.events: list[FutureEvent] = []
        self.earliest = MAX_WATERMARK
        self.latest = MIN_WATERMARK

    def add(self, event: FutureEvent) -> None:
        self.events.append(event)
        self.earliest = min(self.earliest, event.ts)
        self.latest = max(self.latest, event.ts)


class EventClock:
    """Tracks the largest accepted event time; the watermark is that less the allowed lateness. All times in ms.

    An event further ahead than the allowed skew does not advance the clock until an event of another user confirms
    it, so one bad clock has no effect. The first record is always accepted, since there is nothing to compare it to.
    """

    def __init__(
        self,
        allowed_lateness: int,
        max_clock_skew: int,
        max_event_time: int | None = None,
        future_events: list[FutureEvent] | None = None,
    ):
        self.allowed_lateness = allowed_lateness
        self.max_clock_skew = max_clock_skew
        self.max_event_time = max_event_time
        self.watermark = MIN_WATERMARK if max_event_time is None else max_event_time - allowed_lateness
        """Largest accepted event time less the allowed lateness; `MIN_WATERMARK` before the first event."""
        self._quarantine: deque[FutureEvent] = deque()
        self._by_user: dict[str, _UserFutureEvents] = {}
        for event in future_events or ():
            self._add(event)

    @property
    def future_events(self) -> list[FutureEvent]:
        """The quarantined events that are neither confirmed nor expired, in order of arrival."""
        return [event for event in self._quarantine if not event.confirmed]

    @property
    def next_expiry(self) -> int:
        """The watermark at which the oldest quarantined event expires."""
        return self._quarantine[0].expires_at if self._quarantine else MAX_WATERMARK

    def observe(self, ts: int, user_id: str) -> bool:
        """Advance the clock by a valid record; return True if it is too far ahead and did not advance it."""
        max_event_time = self.max_event_time
        if max_event_time is None:
            self._advance_to(ts)
            return False
        if self._quarantine:
            max_event_time = self._confirm_future_events(ts, user_id, max_event_time)
        if ts > max_event_time:
            if ts > max_event_time + self.max_clock_skew:
                return True
            self.max_event_time = ts
            self.watermark = ts - self.allowed_lateness
        return False

    def exceeds_max_skew(self, ts: int) -> bool:
        """Whether an event time is further ahead than the allowed skew."""
        return self.max_event_time is not None and ts > self.max_event_time + self.max_clock_skew

    def quarantine(self, ts: int, user_id: str, offset: int, value: bytes) -> FutureEvent:
        """Quarantine an event; the caller sets the pending page or click that it created."""
        event = FutureEvent(ts, user_id, self.watermark + self.max_clock_skew, offset, value)
        self._add(event)
        return event

    def pop_expired(self) -> Iterator[FutureEvent]:
        """Remove and yield the events that expire unconfirmed, oldest first.

        An event whose time the clock has reached meanwhile is not yielded, since its timestamp was right: otherwise a
        log with less than one page per hour would end as dead letters.
        """
        watermark, max_event_time = self.watermark, self.max_event_time
        while self._quarantine and self._quarantine[0].expires_at <= watermark:
            event = self._quarantine.popleft()
            if not event.confirmed:
                self._remove(event)
                if max_event_time is not None and event.ts > max_event_time:
                    yield event

    def _confirm_future_events(self, ts: int, user_id: str, max_event_time: int) -> int:
        confirmed = [
            event
            for user, user_events in self._by_user.items()
            if user != user_id
            and user_events.earliest - self.max_clock_skew <= ts <= user_events.latest + self.max_clock_skew
            for event in user_events.events
            if abs(ts - event.ts) <= self.max_clock_skew
        ]
        for event in confirmed:
            event.confirmed = True
            self._remove(event)
            max_event_time = max(max_event_time, event.ts)
        if confirmed:
            self._advance_to(max_event_time)
        return max_event_time

    def _advance_to(self, ts: int) -> None:
        self.max_event_time = ts
        self.watermark = ts - self.allowed_lateness

    def _add(self, event: FutureEvent) -> None:
        self._quarantine.append(event)
        self._by_user.setdefault(event.user_id, _UserFutureEvents()).add(event)

    def _remove(self, event: FutureEvent) -> None:
        user_events = self._by_user[event.user_id]
        user_events.events.remove(event)
        if not user_events.events:
            del self._by_user[event.user_id]
