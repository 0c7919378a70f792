"""The order of a log in time: lines that step back, clocks that run ahead, and the time that it covers."""

from collections.abc import Sequence
from typing import Final

import msgspec

from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Event
from prectr.stream.join.event_clock import EventClock

_QUANTILES: Final = (0.5, 0.99)


class OrderReport(msgspec.Struct):
    """How far the lines of a log are in order of time.

    Attributes:
        first_ts, last_ts: earliest and latest time; None without a valid event.
        events: valid events.
        behind: those that step back by more than `allowed_lateness` behind the latest time accepted in their partition.
        median_ms, p99_ms, largest_ms: how far these step back, in ms; quantiles are rounded up to a power of two.
        ahead: events further ahead than `max_clock_skew` that are dead letters as `future_timestamp`.
        overlapping_files: files that begin before the one read before them ends.
    """

    first_ts: int | None = None
    last_ts: int | None = None
    events: int = 0
    behind: int = 0
    median_ms: int = 0
    p99_ms: int = 0
    largest_ms: int = 0
    ahead: int = 0
    overlapping_files: int = 0


class TimeOrder:
    """Follows the event clock of each partition as stage `join` would."""

    def __init__(self, config: PipelineConfig) -> None:
        self._clocks = [
            EventClock(round(config.allowed_lateness * 1000), round(config.max_clock_skew * 1000))
            for _ in range(config.partitions)
        ]
        self._report = OrderReport()
        self._steps: dict[int, int] = {}
        """Number of steps back by the bit length of their size in ms."""

    def observe(self, event: Event, partition: int) -> int:
        """Take in the next event of a partition; return the partition's watermark at that moment (ms)."""
        clock, ts = self._clocks[partition], event.ts
        is_ahead = clock.observe(ts, event.user_id)
        watermark = clock.watermark
        if watermark >= clock.next_expiry:
            self._report.ahead += sum(1 for _ in clock.pop_expired())
        if is_ahead:
            clock.quarantine(ts, event.user_id, 0, b"")
        if ts < watermark:
            self._step_back(watermark + clock.allowed_lateness - ts)
        return watermark

    def report(self, ranges: Sequence[tuple[int, int]], events: int) -> OrderReport:
        """Summarise. ranges: earliest and latest time of each file, in the order in which they are read."""
        report = self._report
        report.events = events
        if ranges:
            report.first_ts = min(first for first, _ in ranges)
            report.last_ts = max(last for _, last in ranges)
        report.overlapping_files = overlapping(ranges)
        report.median_ms, report.p99_ms = (self._quantile(share) for share in _QUANTILES)
        return report

    def _step_back(self, size: int) -> None:
        report = self._report
        report.behind += 1
        report.largest_ms = max(report.largest_ms, size)
        bits = size.bit_length()
        self._steps[bits] = self._steps.get(bits, 0) + 1

    def _quantile(self, share: float) -> int:
        rest = share * self._report.behind
        for bits in sorted(self._steps):
            rest -= self._steps[bits]
            if rest <= 0:
                return min(1 << bits, self._report.largest_ms)
        return 0


def overlapping(ranges: Sequence[tuple[int, int]]) -> int:
    """Return how many ranges of time begin before one that precedes them in the list has ended."""
    count = 0
    latest: int | None = None
    for first, last in ranges:
        count += latest is not None and first < latest
        latest = last if latest is None else max(latest, last)
    return count
