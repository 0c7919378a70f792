"""The event clock of one task: the time that its stream has come to, decided by the events in their order alone.

The rule, with its reasons, is in docs/semantics.md, "Watermark of a task".
"""

from itertools import islice, takewhile
from typing import Final

import msgspec

MIN_WATERMARK: Final = -(1 << 62)
"""The watermark of a task that has not settled on a time yet."""
MAX_WATERMARK: Final = 1 << 62
"""After every event: the watermark of a source that has ended for good."""

VOTERS: Final = 64
"""The users of the latest records, as many as have a vote on the time."""
SETTLING_TURNS: Final = 64
SETTLING_RECORDS: Final = 16_384
"""What a new partition must have seen before it settles on a time: so many turns of its users, or records, or a user
who has moved on as far as counts for a vote."""
_CROWD: Final = 12
_SMALL_CROWD: Final = 6
"""The latest users; if two thirds of them were here just now, a large step of one of them needs the others' votes. In
a partition of fewer than the second number it does not."""
_RUN_USERS: Final = 16
"""As many users in a row, all of them ahead, are the stream."""
_SKEWS_PER_VOTE: Final = 24
_SKEWS_OF_A_VOTE: Final = 24 * 7
"""In units of the allowed skew: how far a user unopposed goes for each vote that is missing; how long a vote lasts."""


class ClockState(msgspec.Struct, array_like=True):
    """What an `EventClock` is restored from. Times in ms.

    Attributes:
        accepted: the time that the stream has come to; None before the clock has settled.
        progress: how far it has moved on since it settled; a move by vote counts for little.
        voters: (user_id, ts of the last record) of the latest users, oldest first.
        run: by user, the records since the last one that was not ahead.
        records, turns, last_user: what the clock has seen before it settled.
    """

    accepted: int | None = None
    progress: int = 0
    voters: list[tuple[str, int]] = []
    run: "dict[str, UserRun]" = {}
    records: int = 0
    turns: int = 0
    last_user: str | None = None

    @property
    def best_time(self) -> int | None:
        """The accepted time; before there is one, what two thirds of the users have reached; None without any."""
        if self.accepted is not None or not self.voters:
            return self.accepted
        times = sorted((ts for _, ts in self.voters), reverse=True)
        return times[_two_thirds(len(times)) - 1]


class UserRun(msgspec.Struct, array_like=True):
    """Records of one user, all of them ahead, without a record of anybody that was not.

    Attributes:
        latest: the largest time among them.
        moved: how far they have moved on from the first to that, a step counting as no more than the allowed skew.
        gapless: whether no step was larger than that, from the accepted time on.
    """

    latest: int
    moved: int
    gapless: bool


class EventClock:
    """Tracks the accepted time of a partition; the watermark is that less the allowed lateness. All times in ms.

    A record a little ahead of the accepted time moves it there, and one up to the allowed skew ahead does where the
    stream is sparse. Others move nothing until most of the latest users have come there. Before the clock has
    settled, every record is ahead.
    """

    def __init__(self, allowed_lateness: int, max_clock_skew: int, state: ClockState | None = None) -> None:
        state = state or ClockState()
        self._lateness = allowed_lateness
        self._skew = max_clock_skew
        self._step = max_clock_skew // 4
        self._accepted = MIN_WATERMARK
        self.watermark = MIN_WATERMARK
        """The accepted time less the allowed lateness; `MIN_WATERMARK` before the clock has settled."""
        if state.accepted is not None:
            self._set_accepted(state.accepted)
        self._uncounted = self._accepted - state.progress
        self._recent = dict(state.voters)
        self._run = dict(state.run)
        # A record up to this time changes nothing: the accepted time, or no time at all during a run, since the next
        # record that is not ahead ends it.
        self._no_change_until = MIN_WATERMARK if state.run else self._accepted
        self._records, self._turns, self._last_user = state.records, state.turns, state.last_user

    def state(self) -> ClockState:
        """Return what the clock is to be restored from."""
        if len(self._recent) > VOTERS:
            self._recent = dict(list(self._recent.items())[-VOTERS:])
        return ClockState(
            self._accepted if self.has_settled else None,
            self.progress,
            list(self._recent.items()),
            self._run,
            self._records,
            self._turns,
            self._last_user,
        )

    @property
    def has_settled(self) -> bool:
        """Whether there is an accepted time."""
        return self._accepted != MIN_WATERMARK

    @property
    def progress(self) -> int:
        """How far the accepted time has moved on since the clock settled; a move by vote counts for little."""
        return self._accepted - self._uncounted

    @property
    def next_expiry(self) -> int:
        """The progress at which an event that is ahead now expires."""
        return self.progress + self._skew

    def watermark_at(self, progress: int | None) -> int:
        """Return the watermark at which the clock will have made so much progress, unless it moves by vote before.

        `MAX_WATERMARK` for None; before the clock has settled, the next watermark, whatever it is.
        """
        if progress is None:
            return MAX_WATERMARK
        return self.watermark + progress - self.progress if self.has_settled else MIN_WATERMARK + 1

    def observe(self, ts: int, user_id: str) -> bool:
        """Advance the clock by a valid record; return whether the record is ahead of it all the same."""
        recent = self._recent
        recent.pop(user_id, None)
        recent[user_id] = ts
        if ts <= self._no_change_until:
            return False
        if ts > self._accepted + self._step:
            return self._take_large_step(ts, user_id)
        if ts > self._accepted:
            self._accepted = ts
            self.watermark = ts - self._lateness
        if self._run:
            self._run.clear()
        self._no_change_until = self._accepted
        return False

    def is_ahead(self, ts: int) -> bool:
        """Whether an event time is further ahead of the accepted time than the allowed skew."""
        return ts > self._accepted + self._skew

    def lead(self, ts: int) -> int:
        """Return how far an event time is ahead of the accepted time."""
        return ts - self._accepted

    def _set_accepted(self, ts: int) -> None:
        self._accepted = ts
        self.watermark = ts - self._lateness

    def _take_large_step(self, ts: int, user_id: str) -> bool:
        if not self.has_settled:
            if self._has_settled(ts, user_id):
                times = self._latest_times(VOTERS)
                self._move_to(times, _two_thirds(len(times)))
        elif not self.is_ahead(ts) and self._is_sparse():
            self._set_accepted(ts)
            self._run.clear()
            self._no_change_until = ts
        else:
            run = self._extend_run(ts, user_id)
            if run.gapless and run.moved >= self._skew // 2:
                self._move_to([run.latest], 1)
            else:
                self._vote(run)
        return self.is_ahead(ts)

    def _has_settled(self, ts: int, user_id: str) -> bool:
        self._records += 1
        self._turns += user_id != self._last_user
        self._last_user = user_id
        return (
            self._turns >= SETTLING_TURNS
            or self._records >= SETTLING_RECORDS
            or self._extend_run(ts, user_id).moved >= _SKEWS_PER_VOTE * self._skew
        )

    def _latest_times(self, users: int) -> list[int]:
        """Return the last times of so many users, the latest user's first."""
        return list(islice(reversed(self._recent.values()), users))

    def _is_sparse(self) -> bool:
        """Whether the users are few, or two thirds of the latest ones have not been here just now."""
        crowd = self._latest_times(_CROWD)
        here = sum([time >= self._accepted - self._step for time in crowd])
        return len(crowd) < _SMALL_CROWD or here < _two_thirds(len(crowd))

    def _extend_run(self, ts: int, user_id: str) -> UserRun:
        self._no_change_until = MIN_WATERMARK
        run = self._run.get(user_id)
        if run is None:
            run = self._run[user_id] = UserRun(ts, 0, gapless=not self.is_ahead(ts))
        elif ts > run.latest:
            step = ts - run.latest
            run.moved += min(step, self._skew)
            run.gapless = run.gapless and step <= self._skew
            run.latest = ts
        return run

    def _is_outvoted(self, near: int, oldest: int, run: UserRun) -> bool:
        """Whether so many users are not ahead that no vote can succeed; most are, long before all are counted."""
        most = min(len(self._recent), VOTERS) // 3 + run.moved // (_SKEWS_PER_VOTE * self._skew)
        opposed = 0
        for count, time in enumerate(islice(reversed(self._recent.values()), VOTERS)):
            if time > near:
                if count + 1 >= _RUN_USERS and not opposed:
                    return False
            elif time >= oldest:
                opposed += 1
                if opposed > most:
                    return True
        return False

    def _vote(self, run: UserRun) -> None:
        """Move if the latest users in a row are ahead, or two thirds of all."""
        near = self._accepted + self._step
        oldest = self._accepted - _SKEWS_OF_A_VOTE * self._skew
        if self._is_outvoted(near, oldest, run):
            return
        times = self._latest_times(VOTERS)
        if len(times) >= _RUN_USERS and min(times[:_RUN_USERS]) > near:
            self._move_to(list(takewhile(lambda time: time > near, times)), _RUN_USERS)
            return
        if min(times) < oldest:
            times = [time for time in times if time >= oldest]
        votes = max(1, _two_thirds(len(times)) - run.moved // (_SKEWS_PER_VOTE * self._skew))
        ahead = sum([time > near for time in times])
        if ahead >= votes and (ahead > 1 or run.moved >= self._skew):
            self._move_to(times, votes)

    def _move_to(self, times: list[int], votes: int) -> None:
        """Move to the time that so many users have come to, then on in small steps with those who followed."""
        progress = self.progress
        accepted = sorted(times, reverse=True)[votes - 1]
        for time in reversed(times):
            if accepted < time <= accepted + self._step:
                accepted = time
        self._set_accepted(accepted)
        self._run.clear()
        self._no_change_until = accepted
        self._uncounted = accepted - progress - self._skew // VOTERS


def _two_thirds(number: int) -> int:
    return -(-2 * number // 3)
