"""How long ago the newest event arrived, and after how long that is conspicuous."""

from collections import deque
from typing import Final

_RECORDS: Final = 1_000
"""The latest events, whose mean distance is the usual one."""
_LONG_GAP: Final = 30_000
_REMEMBERED: Final = 3_600_000
"""For how long a long gap counts as usual: some producers send in batches. Both in ms."""
_GAPS: Final = 50
_SHORTEST: Final = 60_000
_LONGEST: Final = 600_000
"""As the alert PrectrNoInput, which fires at that after any rate. Both in ms."""


class Arrivals:
    """Times of arrival, all in ms since the epoch. newest: of the newest event; None before the first."""

    def __init__(self) -> None:
        self.newest: int | None = None
        self._batches: deque[tuple[int, int]] = deque()
        """Time of the first event, and number of events."""
        self._records = 0
        self._long_gaps: deque[tuple[int, int]] = deque()
        """When it ended, and how long it was."""

    def observe(self, first: int, last: int, count: int) -> None:
        """Note that `count` consecutive events arrived from `first` to `last`."""
        if self.newest is not None and first - self.newest >= _LONG_GAP:
            self._long_gaps.append((first, first - self.newest))
        self.newest = last if self.newest is None else max(self.newest, last)
        self._batches.append((first, count))
        self._records += count
        while self._records - self._batches[0][1] >= _RECORDS:
            self._records -= self._batches.popleft()[1]
        while self._long_gaps and self._long_gaps[0][0] < self.newest - _REMEMBERED:
            self._long_gaps.popleft()

    @property
    def longest_usual_silence(self) -> int:
        """How long no event may arrive, in ms, before that is conspicuous.

        50 times the mean distance of the latest thousand events, and twice the longest pause of the last hour, but at
        least a minute and at most ten.
        """
        if self.newest is None or self._records < 2:
            return _LONGEST
        mean = (self.newest - self._batches[0][0]) // (self._records - 1)
        longest = max((gap for _, gap in self._long_gaps), default=0)
        return min(_LONGEST, max(_SHORTEST, _GAPS * mean, 2 * longest))
