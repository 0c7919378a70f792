"""The order of a log in time: lines that step back, clocks that run ahead, and the time that it covers."""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Event
from prectr.stream.join.event_clock import EventClock
from prectr.stream.replay.disorder import Disorder

_QUANTILES: Final = (0.5, 0.99)


class OrderReport(msgspec.Struct):
    """How far the lines of a log are in order of time.

    Attributes:
        first_ts, last_ts: earliest and latest time; None without a valid event.
        events: valid events.
        behind: those that step back by more than `allowed_lateness` behind the events read before, as in a report.
        median_ms, p99_ms, largest_ms: how far events step back in their partition, beyond `allowed_lateness`, in ms;
            quantiles are rounded up to a power of two.
        ahead: events more than `max_clock_skew` ahead of the others, as in a report.
        overlapping_files: files that begin before one that is named before them ends; they are merged by time.
    """

    first_ts: int | None
    last_ts: int | None
    events: int
    behind: int
    median_ms: int
    p99_ms: int
    largest_ms: int
    ahead: int
    overlapping_files: int


class TimeOrder:
    """Follows the event clock of each partition as stage `join` would."""

    def __init__(self, config: PipelineConfig) -> None:
        self._clocks = [
            EventClock(round(config.allowed_lateness * 1000), round(config.max_clock_skew * 1000))
            for _ in range(config.partitions)
        ]
        self._held: list[deque[tuple[int, int]]] = [deque() for _ in self._clocks]
        """Events ahead, by partition: the clock's progress at which each expires, and its time."""
        self._lateness = round(config.allowed_lateness * 1000)
        self._skew = round(config.max_clock_skew * 1000)
        self._disorder = Disorder()
        self._expired = self._largest = 0
        self._steps: dict[int, int] = {}
        """Number of steps back by the bit length of their size in ms."""

    def observe(self, event: Event, partition: int) -> int:
        """Take in the next event of a partition; return the partition's watermark at that moment (ms)."""
        clock, ts = self._clocks[partition], event.ts
        is_ahead = clock.observe(ts, event.user_id)
        watermark = clock.watermark
        held = self._held[partition]
        if is_ahead:
            held.append((clock.next_expiry, ts))
        while held and held[0][0] <= clock.progress:
            self._expired += clock.is_ahead(held.popleft()[1])
        if ts < watermark:
            self._step_back(watermark + self._lateness - ts)
        return watermark

    def add_times(self, times: npt.NDArray[np.int64]) -> None:
        """Take in the times of the next events, of all partitions (int64[events], ms)."""
        self._disorder.add(times, self._lateness, self._skew)

    def report(self, ranges: Sequence[tuple[int, int]]) -> OrderReport:
        """Summarise. ranges: earliest and latest time of each file, in the order in which they are named."""
        median, p99 = (self._quantile(share) for share in _QUANTILES)
        return OrderReport(
            first_ts=min((first for first, _ in ranges), default=None),
            last_ts=max((last for _, last in ranges), default=None),
            events=self._disorder.events,
            behind=self._disorder.behind,
            median_ms=median,
            p99_ms=p99,
            largest_ms=self._largest,
            ahead=max(self._disorder.ahead, self._expired),
            overlapping_files=overlapping(ranges),
        )

    def _step_back(self, size: int) -> None:
        self._largest = max(self._largest, size)
        bits = size.bit_length()
        self._steps[bits] = self._steps.get(bits, 0) + 1

    def _quantile(self, share: float) -> int:
        rest = share * sum(self._steps.values())
        for bits in sorted(self._steps):
            rest -= self._steps[bits]
            if rest <= 0:
                return min(1 << bits, self._largest)
        return 0


def overlapping(ranges: Sequence[tuple[int, int]]) -> int:
    """Return how many ranges of time begin before one that precedes them in the list has ended."""
    count = 0
    latest: int | None = None
    for first, last in ranges:
        count += latest is not None and first < latest
        latest = last if latest is None else max(latest, last)
    return count
