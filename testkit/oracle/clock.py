"""The clock of a partition as docs/semantics.md defines it, over the list of all its records: slow and plain."""

from itertools import pairwise

HOUR = 3_600_000
LATENESS = 5_000
STEP = HOUR // 4
SETTLING_TURNS = 64


class Clock:
    """Decides for each record whether it is ahead. `accepted` is None until the clock has settled."""

    def __init__(self, accepted: int | None = None) -> None:
        self.accepted = accepted
        self.progress = 0
        self.records: list[tuple[str, int]] = []
        self.run: list[tuple[str, int]] = []
        """The latest records, all of them ahead."""

    @property
    def watermark(self) -> float:
        """The accepted time less the lateness, in ms; before there is one, before everything."""
        return float("-inf") if self.accepted is None else self.accepted - LATENESS

    def is_ahead(self, ts: int) -> bool:
        """Whether a time in ms is more than an hour ahead of the accepted one."""
        return self.accepted is None or ts - self.accepted > HOUR

    def see(self, ts: int, user: str) -> bool:
        """Move the clock by a record; return whether the record is ahead of it then."""
        self.records.append((user, ts))
        times = [time for _, time in self._voters()]
        if self.accepted is None:
            if self._has_settled():
                self._move(times, two_thirds(len(times)))
        elif ts - self.accepted <= STEP or (ts - self.accepted <= HOUR and self._is_sparse(times)):
            self.run = []
            self.progress += max(0, ts - self.accepted)
            self.accepted = max(self.accepted, ts)
        else:
            self.run.append((user, ts))
            self._vote(times)
        return self.is_ahead(ts)

    def _is_sparse(self, times: list[int]) -> bool:
        assert self.accepted is not None
        latest = times[:12]
        here = [time for time in latest if time >= self.accepted - STEP]
        return len(latest) < 6 or 3 * len(here) < 2 * len(latest)

    def _has_settled(self) -> bool:
        users = [user for user, _ in self.records]
        turns = 1 + sum(one != next_one for one, next_one in pairwise(users))
        return (
            turns >= SETTLING_TURNS
            or len(users) >= 16_384
            or sum(min(step, HOUR) for step in self._own_steps(self.records)) >= 24 * HOUR
        )

    @staticmethod
    def _own_steps(records: list[tuple[str, int]]) -> list[int]:
        """How far the user of the last of these records had moved on each time that it came to a new latest time."""
        peaks: list[int] = []
        for user, ts in records:
            if user == records[-1][0] and (not peaks or ts > peaks[-1]):
                peaks.append(ts)
        return [later - earlier for earlier, later in pairwise(peaks)]

    def _voters(self) -> list[tuple[str, int]]:
        """(user, time of its latest record) of the users of the latest records, 64 at most, the latest first."""
        found: dict[str, int] = {}
        for user, ts in reversed(self.records):
            if len(found) == 64:
                break
            found.setdefault(user, ts)
        return list(found.items())

    def _vote(self, times: list[int]) -> None:
        assert self.accepted is not None
        own = [ts for user, ts in self.run if user == self.run[-1][0]]
        steps = self._own_steps(self.run)
        moved = sum(min(step, HOUR) for step in steps)
        if moved >= HOUR // 2 and max([own[0] - self.accepted, *steps]) <= HOUR:
            self._move([max(own)], 1)
            return
        opposed = next((place for place, ts in enumerate(times) if ts - self.accepted <= STEP), len(times))
        if opposed >= 16:
            self._move(times[:opposed], 16)
            return
        times = [ts for ts in times if self.accepted - ts <= 7 * 24 * HOUR]
        needed = max(1, two_thirds(len(times)) - moved // (24 * HOUR))
        ahead = [ts for ts in times if ts - self.accepted > STEP]
        if len(ahead) >= needed and (len(ahead) >= 2 or moved >= HOUR):
            self._move(times, needed)

    def _move(self, times: list[int], needed: int) -> None:
        """Move to the time that `needed` of the users have reached, and on in small steps with those who came after."""
        goal = max(time for time in times if sum(other >= time for other in times) >= needed)
        for time in reversed(times):
            if goal < time <= goal + STEP:
                goal = time
        self.accepted = goal
        self.progress += HOUR // 64
        self.run = []


def two_thirds(number: int) -> int:
    """The smallest whole number that is not less than two thirds of `number`."""
    return next(part for part in range(number + 1) if 3 * part >= 2 * number)
