"""How far events run backwards in time, in the order in which they are read."""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

_CONFIRMATIONS: Final = 8
"""Events beyond the allowed skew, more than those within it meanwhile, after which the log itself has moved on."""
_MIN_NUMPY_EVENTS: Final = 64
"""Below this many events a plain loop is faster than numpy's calls."""


class Disorder(msgspec.Struct, omit_defaults=True):
    """Events of one sequence, and those that step back in time by more than the allowed lateness.

    An event steps back from the time that the sequence has reached. A clock that is ahead by more than the allowed
    skew does not move that time, until eight more events than not agree that the log itself has jumped.

    Attributes:
        events: valid events.
        behind: of these, events that step back.
        ahead: of these, events with clock skew: beyond the allowed one, and contradicted by as many later events.
        reached: the largest event time so far that is no wrong clock's, in ms.
        within, far_ahead, far_behind: events near that time; votes for later and for earlier ones.
        later: the earliest time that the votes for later ones name, in ms.
    """

    events: int = 0
    behind: int = 0
    ahead: int = 0
    reached: int | None = None
    within: int = 0
    far_ahead: int = 0
    far_behind: int = 0
    later: int = 0

    @property
    def share(self) -> float:
        """The share of the events that step back; 0 without events."""
        return self.behind / self.events if self.events else 0.0

    def add(self, times: npt.NDArray[np.int64], allowed_lateness: int, max_skew: int) -> None:
        """Add the event times of the next valid events, int64[events]; all in ms."""
        if not len(times):
            return
        self.events += len(times)
        if self.reached is None:
            self.reached = int(times[0])
        if len(times) < _MIN_NUMPY_EVENTS or not self._add_smooth(times, self.reached, allowed_lateness, max_skew):
            for ts in times.tolist():
                self._add_one(ts, allowed_lateness, max_skew)

    def _add_smooth(
        self, times: npt.NDArray[np.int64], reached_before: int, allowed_lateness: int, max_skew: int
    ) -> bool:
        """Add events of which none is beyond the allowed skew; returns False, without an effect, if one is."""
        reached = np.maximum.accumulate(np.concatenate(([reached_before], times), dtype=np.int64))
        steps = times - reached[:-1]
        smallest = steps.min()
        if smallest < -max_skew or steps.max() > max_skew:
            return False
        behind = int(np.count_nonzero(steps < -allowed_lateness)) if smallest < -allowed_lateness else 0
        self.behind += behind
        self._confirm(len(times) - behind)
        self.reached = int(reached[-1])
        return True

    def _add_one(self, ts: int, allowed_lateness: int, max_skew: int) -> None:
        reached = ts if self.reached is None else self.reached
        if ts > reached + max_skew:
            self.later = min(ts, self.later) if self.far_ahead else ts
            self.far_ahead += 1
            if self.far_ahead >= _CONFIRMATIONS:
                self.reached, self.far_ahead, self.within = self.later, 0, self.within + _CONFIRMATIONS
        elif ts < reached - allowed_lateness:
            self.behind += 1
            if ts < reached - max_skew:
                self.far_behind += 1
                if self.far_behind >= _CONFIRMATIONS > self.within:
                    # The first events were those with the wrong clock.
                    self.behind -= self.far_behind
                    self.ahead += self.within
                    self.reached, self.within, self.far_behind = ts, self.far_behind, 0
        else:
            self._confirm(1)
            self.reached = max(reached, ts)

    def _confirm(self, events: int) -> None:
        """Count events near the time reached; each contradicts one vote for a later one."""
        self.within += events
        contradicted = min(self.far_ahead, events)
        self.far_ahead -= contradicted
        self.ahead += contradicted
