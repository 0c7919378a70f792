"""The metrics of a stream worker, by task."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.progress_and_lag import (
    CONSUMER_LAG_RECORDS,
    EMITTED_RECORDS,
    LAST_EVENT_TIMESTAMP_SECONDS,
    LONGEST_USUAL_SILENCE_SECONDS,
    MICROBATCH_RECORDS,
    MICROBATCH_SECONDS,
    TASK_OFFSET,
    TRANSACTION_SECONDS,
    WATERMARK_LAG_SECONDS,
    WATERMARK_TIMESTAMP_SECONDS,
)
from prectr.ops.metrics.catalogue.record_outcomes import FUTURE_EVENT_LEAD_SECONDS, FUTURE_EVENTS, MISPLACED_EVENTS
from prectr.ops.metrics.catalogue.state_and_snapshots import (
    RESTORE_REMAINING_RECORDS,
    RESTORE_SECONDS,
    RESTORED_RECORDS,
    SNAPSHOT_AGE_SECONDS,
    SNAPSHOT_BYTES,
    SNAPSHOT_FAILURES,
    SNAPSHOT_SECONDS,
    SNAPSHOT_UPLOADED_BYTES,
    SNAPSHOTS_CORRUPT,
    STORE_BLOCK_CACHE_HITS,
    STORE_BLOCK_CACHE_MISSES,
    STORE_BYTES,
    STORE_KEYS,
    STORE_MEMORY_BYTES,
    STORE_WRITE_STALL_SECONDS,
)
from prectr.ops.metrics.definition import MetricDefinition
from prectr.ops.metrics.level import level_metrics
from prectr.ops.metrics.outcome import dead_letter_metric, outcome_metrics
from prectr.stream.kafka.tasks.task_metrics import BUCKET_BOUNDS, DurationBuckets
from prectr.stream.kafka.tasks.task_status import TaskState

if TYPE_CHECKING:
    from prectr.state.snapshots.snapshotter import SnapshotProgress
    from prectr.state.store import StoreStats
    from prectr.stream.kafka.tasks.task_metrics import TaskCounts
    from prectr.stream.kafka.tasks.task_status import TaskStatus

_Measure: TypeAlias = Callable[["TaskStatus"], float | None]
_TASK_LABELS: Final = ("stage", "partition")


def _snapshot_stat(task: "TaskStatus", measure: "Callable[[SnapshotProgress], float | None]") -> float | None:
    """A number of the task's last snapshot; None before the first."""
    return None if task.snapshots is None or task.snapshots.created_at is None else measure(task.snapshots)


def _store_stat(task: "TaskStatus", measure: "Callable[[StoreStats], float]") -> float | None:
    return None if task.store_stats is None else measure(task.store_stats)


_MEASURES: Final[tuple[tuple[MetricDefinition, _Measure], ...]] = (
    (TASK_OFFSET, lambda task: task.next_offset),
    (CONSUMER_LAG_RECORDS, lambda task: task.lag),
    (WATERMARK_TIMESTAMP_SECONDS, lambda task: None if task.watermark is None else task.watermark / 1000),
    (EMITTED_RECORDS, lambda task: task.emitted),
    (MICROBATCH_RECORDS, lambda task: task.processed_records),
    (RESTORE_REMAINING_RECORDS, lambda task: task.restore_remaining),
    (RESTORE_SECONDS, lambda task: task.restore_seconds),
    (RESTORED_RECORDS, lambda task: task.restored_records),
    (STORE_KEYS, lambda task: _store_stat(task, lambda store: store.keys)),
    (STORE_BYTES, lambda task: _store_stat(task, lambda store: store.size)),
    (STORE_MEMORY_BYTES, lambda task: _store_stat(task, lambda store: store.memory)),
    (STORE_BLOCK_CACHE_HITS, lambda task: _store_stat(task, lambda store: store.cache_hits)),
    (STORE_BLOCK_CACHE_MISSES, lambda task: _store_stat(task, lambda store: store.cache_misses)),
    (STORE_WRITE_STALL_SECONDS, lambda task: _store_stat(task, lambda store: store.stall_seconds)),
    (SNAPSHOT_SECONDS, lambda task: _snapshot_stat(task, lambda snapshot: snapshot.seconds)),
    (SNAPSHOT_BYTES, lambda task: _snapshot_stat(task, lambda snapshot: snapshot.total_bytes)),
    (SNAPSHOT_UPLOADED_BYTES, lambda task: _snapshot_stat(task, lambda snapshot: snapshot.uploaded_bytes)),
    (SNAPSHOT_FAILURES, lambda task: None if task.snapshots is None else task.snapshots.failures),
    (SNAPSHOTS_CORRUPT, lambda task: None if task.snapshots is None else task.snapshots.corrupt_count),
)
_HISTOGRAMS: Final[tuple[tuple[MetricDefinition, Callable[["TaskStatus"], DurationBuckets]], ...]] = (
    (MICROBATCH_SECONDS, lambda task: task.batch_durations),
    (TRANSACTION_SECONDS, lambda task: task.commit_durations),
)


def stream_metrics(tasks: Sequence["TaskStatus"], clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of the tasks that are assigned to this process now.

    Args:
        tasks: their status.
        clock: returns seconds since the epoch.
    """
    for definition, measure in _MEASURES:
        yield definition.metric((_labels(task), measure(task)) for task in tasks)
    for definition, histogram in _HISTOGRAMS:
        family = definition.histogram()
        for task in tasks:
            durations = histogram(task)
            family.add_metric(_labels(task), _buckets(durations), durations.total_seconds)
        yield family
    now = clock()
    yield SNAPSHOT_AGE_SECONDS.metric(
        # Not negative if the clock was set back.
        (_labels(task), _snapshot_stat(task, lambda snapshot: max(0.0, now - (snapshot.created_at or now))))
        for task in tasks
    )
    yield _watermark_lag_metric(tasks)
    counted = [(task, task.counts) for task in tasks if task.counts is not None]
    yield from outcome_metrics(
        [(_labels(task), counts.outcomes) for task, counts in counted if counts.outcomes is not None], _TASK_LABELS
    )
    yield dead_letter_metric(_dead_letter_counts(counted), _TASK_LABELS)
    joins = [(task, counts) for task, counts in counted if counts.outcomes is not None]
    yield FUTURE_EVENTS.metric((_labels(task), counts.future_events) for task, counts in joins)
    yield FUTURE_EVENT_LEAD_SECONDS.metric((_labels(task), counts.future_event_lead / 1000) for task, counts in joins)
    arrived = [(task, counts, counts.last_event_at) for task, counts in joins if counts.last_event_at is not None]
    yield LAST_EVENT_TIMESTAMP_SECONDS.metric((_labels(task), at / 1000) for task, _, at in arrived)
    yield LONGEST_USUAL_SILENCE_SECONDS.metric(
        (_labels(task), counts.longest_usual_silence / 1000) for task, counts, _ in arrived
    )
    yield MISPLACED_EVENTS.metric((_labels(task), counts.misplaced_events) for task, counts in joins)
    yield from level_metrics(
        [(_labels(task), counts.level_counts) for task, counts in counted if counts.level_counts], _TASK_LABELS
    )


def unready_reason(tasks: Sequence["TaskStatus"]) -> str:
    """Why a stream worker is not ready: tasks that rebuild their state; empty if there are none."""
    restoring = [task for task in tasks if task.state is TaskState.RESTORING]
    if not restoring:
        return ""
    remaining = sum(task.restore_remaining for task in restoring)
    return f"restoring {len(restoring)} of {len(tasks)} tasks: {remaining:,} records left"


def _labels(task: "TaskStatus") -> list[str]:
    return [task.stage, str(task.partition)]


def _dead_letter_counts(
    counted: "Iterable[tuple[TaskStatus, TaskCounts]]",
) -> Iterator[tuple[list[str], dict[str, int]]]:
    for task, counts in counted:
        if counts.outcomes is not None:
            yield _labels(task), dict(counts.dead_letters)


def _watermark_lag_metric(tasks: Sequence["TaskStatus"]) -> Metric:
    latest = max((task.counts.max_watermark for task in tasks if task.counts is not None), default=0)
    return WATERMARK_LAG_SECONDS.metric(
        # The watermark of a task may be newer than the counts of its last commit.
        (_labels(task), None if task.watermark is None else max(0.0, (latest - task.watermark) / 1000))
        for task in tasks
    )


def _buckets(durations: DurationBuckets) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKET_BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(durations.counts), strict=True))
