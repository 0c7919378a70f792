"""What a task has counted, and how long its work took: taken down once a micro-batch, for whoever watches."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from prectr.state.aggregates import LevelCounts, count_levels
from prectr.stream.join.event_clock import MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.records import Example

BUCKET_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets that durations are counted in, seconds."""


class DurationBuckets(msgspec.Struct, frozen=True):
    """How often something was done and how long it took. counts: by bucket, the last has no bound. total: s."""

    counts: tuple[int, ...] = (0,) * (len(BUCKET_BOUNDS) + 1)
    total_seconds: float = 0.0


class DurationHistogram:
    """Counts durations by bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKET_BOUNDS) + 1)
        self._total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count something that took so long."""
        self._counts[bisect_left(BUCKET_BOUNDS, seconds)] += 1
        self._total_seconds += seconds

    def buckets(self) -> DurationBuckets:
        """What has been counted so far."""
        return DurationBuckets(tuple(self._counts), self._total_seconds)


class TaskCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage has counted, as of a commit: none of it ever goes back, whatever is done again after a crash.

    outcomes: of a `join` task since the beginning, whoever had it then; None of others. dead_letters: by reason,
    since the task was opened here. levels: of all queries of a `aggregate` task, since then; None of others. heard: the
    largest watermark that the task knows of, its own or another's (ms).
    """

    outcomes: Outcomes | None = None
    dead_letters: Mapping[str, int] = {}
    level_counts: LevelCounts | None = None
    max_watermark: int = MIN_WATERMARK


def count_levels_of_pages(examples: Sequence[Example]) -> LevelCounts:
    """Count impressions and clicks by level of many pages."""
    return count_levels(
        b"".join([example.levels for example in examples]), b"".join([example.labels for example in examples])
    )
