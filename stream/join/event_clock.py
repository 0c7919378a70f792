"""The watermark of one task, and the clocks that jump (DESIGN, "Time")."""

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

BEFORE_TIME: Final = -(1 << 62)
"""The watermark of a task that has seen no valid record."""
END_OF_TIME: Final = 1 << 62
"""Past everything: the watermark of a source that has ended for good."""


class Suspect(msgspec.Struct, array_like=True):
    """An event that is further ahead of its task than a clock may jump, until another user confirms its time.

    expires_at: the watermark at which it is given up. page: number of the page, or None. waiting: number of the
    waiting click, or None. value, place: the original bytes and where they stood, for the dead letter.
    """

    ts: int
    user_id: str
    expires_at: int
    place: int
    value: bytes
    page: int | None = None
    waiting: int | None = None
    confirmed: bool = False


class _OfUser:
    """The suspects of one user, and the span of their times, so that a far event is told at a glance."""

    __slots__ = ("first", "last", "suspects")

    def __init__(self) -> None:
        self.suspects: list[Suspect] = []
        self.first = END_OF_TIME
        self.last = BEFORE_TIME

    def add(self, suspect: Suspect) -> None:
        self.suspects.append(suspect)
        self.first = min(self.first, suspect.ts)
        self.last = max(self.last, suspect.ts)


class Clock:
    """Largest accepted event time less the allowed lateness; one bad clock moves nothing.

    The first record is accepted as it is, having nothing to be measured against. All times in ms.
    """

    def __init__(self, lateness: int, jump: int, accepted: int | None = None, suspects: list[Suspect] | None = None):
        self.lateness = lateness
        self.jump = jump
        self.accepted = accepted
        self.watermark = BEFORE_TIME if accepted is None else accepted - lateness
        """Largest accepted event time less the lateness; `BEFORE_TIME` before the first."""
        self._queue: deque[Suspect] = deque()
        self._by_user: dict[str, _OfUser] = {}
        for suspect in suspects or ():
            self._add(suspect)

    @property
    def suspects(self) -> list[Suspect]:
        """Those that nobody has confirmed or given up yet, in order of arrival."""
        return [suspect for suspect in self._queue if not suspect.confirmed]

    @property
    def next_expiry(self) -> int:
        """The watermark at which the oldest suspect is given up."""
        return self._queue[0].expires_at if self._queue else END_OF_TIME

    def observe(self, ts: int, user_id: str) -> bool:
        """Let a valid record move the clock; True where it is a suspect and moved nothing."""
        accepted = self.accepted
        if accepted is None:
            self._accept(ts)
            return False
        if self._queue:
            accepted = self._confirm(ts, user_id, accepted)
        if ts > accepted:
            if ts > accepted + self.jump:
                return True
            self.accepted = ts
            self.watermark = ts - self.lateness
        return False

    def is_ahead(self, ts: int) -> bool:
        """Whether an event time is further ahead than a clock may jump."""
        return self.accepted is not None and ts > self.accepted + self.jump

    def hold(self, ts: int, user_id: str, place: int, value: bytes) -> Suspect:
        """Remember a suspect; the caller says what page or waiting click hangs on it."""
        suspect = Suspect(ts, user_id, self.watermark + self.jump, place, value)
        self._add(suspect)
        return suspect

    def expired(self) -> Iterator[Suspect]:
        """Give up the suspects whose clock nobody has confirmed, oldest first.

        A suspect that the accepted time has reached meanwhile is ahead no longer, so its clock was right: without
        this, a log of less than a page an hour would end as dead letters.
        """
        watermark, accepted = self.watermark, self.accepted
        while self._queue and self._queue[0].expires_at <= watermark:
            suspect = self._queue.popleft()
            if not suspect.confirmed:
                self._forget(suspect)
                if accepted is not None and suspect.ts > accepted:
                    yield suspect

    def _confirm(self, ts: int, user_id: str, accepted: int) -> int:
        confirmed = [
            suspect
            for user, of_user in self._by_user.items()
            if user != user_id and of_user.first - self.jump <= ts <= of_user.last + self.jump
            for suspect in of_user.suspects
            if abs(ts - suspect.ts) <= self.jump
        ]
        for suspect in confirmed:
            suspect.confirmed = True
            self._forget(suspect)
            accepted = max(accepted, suspect.ts)
        if confirmed:
            self._accept(accepted)
        return accepted

    def _accept(self, ts: int) -> None:
        self.accepted = ts
        self.watermark = ts - self.lateness

    def _add(self, suspect: Suspect) -> None:
        self._queue.append(suspect)
        self._by_user.setdefault(suspect.user_id, _OfUser()).add(suspect)

    def _forget(self, suspect: Suspect) -> None:
        of_user = self._by_user[suspect.user_id]
        of_user.suspects.remove(suspect)
        if not of_user.suspects:
            del self._by_user[suspect.user_id]
