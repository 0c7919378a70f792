"""The watermark of one task, and the clocks that jump (DESIGN, "Time")."""

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

MIN_WATERMARK: Final = -(1 << 62)
"""The watermark of a task that has seen no valid record."""
MAX_WATERMARK: Final = 1 << 62
"""Past everything: the watermark of a source that has ended for good."""


class FutureEvent(msgspec.Struct, array_like=True):
    """An event that is further ahead of its task than a clock may jump, until another user confirms its time.

    expires_at: the watermark at which it is given up. page: number of the page, or None. waiting: number of the
    waiting click, or None. value, place: the original bytes and where they stood, for the dead letter.
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
    """The suspects of one user, and the span of their times, so that a far event is told at a glance."""

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
    """Largest accepted event time less the allowed lateness; one bad clock moves nothing.

    The first record is accepted as it is, having nothing to be measured against. All times in ms.
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
        """Largest accepted event time less the lateness; `BEFORE_TIME` before the first."""
        self._quarantine: deque[FutureEvent] = deque()
        self._by_user: dict[str, _UserFutureEvents] = {}
        for event in future_events or ():
            self._add(event)

    @property
    def future_events(self) -> list[FutureEvent]:
        """Those that nobody has confirmed or given up yet, in order of arrival."""
        return [event for event in self._quarantine if not event.confirmed]

    @property
    def next_expiry(self) -> int:
        """The watermark at which the oldest suspect is given up."""
        return self._quarantine[0].expires_at if self._quarantine else MAX_WATERMARK

    def observe(self, ts: int, user_id: str) -> bool:
        """Let a valid record move the clock; True where it is a suspect and moved nothing."""
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
        """Whether an event time is further ahead than a clock may jump."""
        return self.max_event_time is not None and ts > self.max_event_time + self.max_clock_skew

    def quarantine(self, ts: int, user_id: str, offset: int, value: bytes) -> FutureEvent:
        """Remember a suspect; the caller says what page or waiting click hangs on it."""
        event = FutureEvent(ts, user_id, self.watermark + self.max_clock_skew, offset, value)
        self._add(event)
        return event

    def pop_expired(self) -> Iterator[FutureEvent]:
        """Give up the suspects whose clock nobody has confirmed, oldest first.

        A suspect that the accepted time has reached meanwhile is ahead no longer, so its clock was right: without
        this, a log of less than a page an hour would end as dead letters.
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
            suspect
            for user, user_events in self._by_user.items()
            if user != user_id
            and user_events.earliest - self.max_clock_skew <= ts <= user_events.latest + self.max_clock_skew
            for suspect in user_events.events
            if abs(ts - suspect.ts) <= self.max_clock_skew
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
