"""A task's counts and durations, updated once per micro-batch, for the metrics."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

import msgspec

from prectr.state.aggregates import LevelCounts
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes

BUCKET_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of durations, in seconds."""


class DurationBuckets(msgspec.Struct, frozen=True):
    """A histogram of durations; the last of the counts has no upper bound."""

    counts: tuple[int, ...] = (0,) * (len(BUCKET_BOUNDS) + 1)
    total_seconds: float = 0.0


class DurationHistogram:
    """Counts durations by bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKET_BOUNDS) + 1)
        self._total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BUCKET_BOUNDS, seconds)] += 1
        self._total_seconds += seconds

    def buckets(self) -> DurationBuckets:
        """Return the counts so far."""
        return DurationBuckets(tuple(self._counts), self._total_seconds)


class TaskCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a task as of a commit; they never decrease, even if records are reprocessed after a crash.

    Attributes:
        outcomes: of a `join` task since the group's first record, in any process; None for other stages.
        dead_letters: by reason, since this process opened the task.
        rejection_example: place and reason of one of the latest dead letters; empty before the first.
        future_events: pages and waiting clicks of a `join` task that are further ahead of its clock than is allowed.
        future_event_lead: how far the one furthest ahead is ahead, in ms.
        misplaced_events: events that belong to another partition by their user, of one in 64 that are looked at, since
            this process opened the task.
        last_event_at: when the newest event that a `join` task has read arrived at the broker, in ms; None before one.
        longest_usual_silence: how long no event may arrive before that is conspicuous, in ms.
        level_counts: of all queries of an `aggregate` task, since this process opened it; None for other stages.
        max_watermark: the largest watermark that the task has observed, its own or another's (ms).
    """

    outcomes: Outcomes | None = None
    dead_letters: Mapping[str, int] = {}
    rejection_example: str = ""
    future_events: int = 0
    future_event_lead: int = 0
    misplaced_events: int = 0
    last_event_at: int | None = None
    longest_usual_silence: int = 0
    level_counts: LevelCounts | None = None
    max_watermark: int = MIN_WATERMARK
