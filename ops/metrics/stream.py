"""The metrics of a stream process: how each task that it has now does, and what it has counted."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import Family, add_samples
from prectr.ops.metrics.lag import TASK_LABELS, consumer_lag_metric, watermark_lag_metric
from prectr.ops.metrics.level import level_metrics
from prectr.ops.metrics.outcome import dead_letter_metric, outcome_metrics
from prectr.stream.kafka.tasks.task_metrics import BUCKET_BOUNDS, DurationBuckets

if TYPE_CHECKING:
    from prectr.state.snapshotter import SnapshotProgress
    from prectr.state.store import StoreStats
    from prectr.stream.kafka.tasks.task_metrics import TaskCounts
    from prectr.stream.kafka.tasks.task_status import TaskStatus

_Measure: TypeAlias = Callable[["TaskStatus"], float | None]


def _snapshot_stat(task: "TaskStatus", measure: "Callable[[SnapshotProgress], float | None]") -> float | None:
    """Of the task's snapshots, once there is one."""
    return None if task.snapshots is None or task.snapshots.created_at is None else measure(task.snapshots)


def _store_stat(task: "TaskStatus", measure: "Callable[[StoreStats], float]") -> float | None:
    return None if task.store_stats is None else measure(task.store_stats)


_GAUGES: Final[tuple[tuple[str, str, _Measure], ...]] = (
    ("prectr_task_offset", "Offset of the next record that the task takes.", lambda task: task.next_offset),
    (
        "prectr_restore_remaining_records",
        "Records to be taken again in silence until the state reaches the commit.",
        lambda task: task.restore_remaining,
    ),
    (
        "prectr_restore_seconds",
        "Time from the task's opening here until its state had reached the commit: a snapshot where there was one to "
        "take, then the records behind it.",
        lambda task: task.restore_seconds,
    ),
    (
        "prectr_watermark_timestamp_seconds",
        "Event time up to which the task is done, seconds since the epoch.",
        lambda task: None if task.watermark is None else task.watermark / 1000,
    ),
    (
        "prectr_store_keys",
        "About how many keys the task's RocksDB holds.",
        lambda task: _store_stat(task, lambda store: store.keys),
    ),
    (
        "prectr_store_bytes",
        "Size of the files of the task's RocksDB.",
        lambda task: _store_stat(task, lambda store: store.size),
    ),
    (
        "prectr_store_memory_bytes",
        "Memory of the block cache and the write buffers of the task's RocksDB.",
        lambda task: _store_stat(task, lambda store: store.memory),
    ),
    (
        "prectr_snapshot_seconds",
        "What the task's last snapshot took, upload included.",
        lambda task: _snapshot_stat(task, lambda saved: saved.seconds),
    ),
    (
        "prectr_snapshot_bytes",
        "Size of the task's last snapshot, with the files that were there already.",
        lambda task: _snapshot_stat(task, lambda saved: saved.total_bytes),
    ),
    (
        "prectr_snapshot_uploaded_bytes",
        "Uploaded for the task's last snapshot; files that were there already are not sent again.",
        lambda task: _snapshot_stat(task, lambda saved: saved.uploaded_bytes),
    ),
)
_COUNTERS: Final[tuple[tuple[str, str, _Measure], ...]] = (
    (
        "prectr_emitted_records",
        "Records that the task has put out since the beginning, whoever had it then.",
        lambda task: task.emitted,
    ),
    (
        "prectr_restored_records",
        "Records that the task has taken again in silence since it was opened here.",
        lambda task: task.restored_records,
    ),
    (
        "prectr_microbatch_records",
        "Records that the task has taken in micro-batches since it was opened here.",
        lambda task: task.processed_records,
    ),
    (
        "prectr_store_block_cache_hits",
        "Blocks that the task's RocksDB found in its cache since it was opened here.",
        lambda task: _store_stat(task, lambda store: store.cache_hits),
    ),
    (
        "prectr_store_block_cache_misses",
        "Blocks that the task's RocksDB had to read from its files since it was opened here.",
        lambda task: _store_stat(task, lambda store: store.cache_misses),
    ),
    (
        "prectr_store_write_stall_seconds",
        "Time for which the task's RocksDB held writes back, since it was opened here.",
        lambda task: _store_stat(task, lambda store: store.stall_seconds),
    ),
    (
        "prectr_snapshot_failures",
        "Snapshots that could not be saved or pruned since the task was opened here.",
        lambda task: None if task.snapshots is None else task.snapshots.failures,
    ),
    (
        "prectr_snapshots_corrupt",
        "Snapshots found damaged, and passed over, when the task was opened here.",
        lambda task: None if task.snapshots is None else task.snapshots.corrupt_count,
    ),
)
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[["TaskStatus"], DurationBuckets]], ...]] = (
    (
        "prectr_microbatch_seconds",
        "What a micro-batch of the task takes, its transaction included.",
        lambda task: task.batch_durations,
    ),
    (
        "prectr_transaction_seconds",
        "What a transaction of the task takes, from its first record to the answer to its commit.",
        lambda task: task.commit_durations,
    ),
)


def stream_metrics(tasks: Sequence["TaskStatus"], clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of the tasks that a process has now: one that has gone elsewhere has none here.

    clock: seconds since the epoch.
    """
    for name, text, measure in _GAUGES:
        yield _by_task(GaugeMetricFamily(name, text, labels=TASK_LABELS), tasks, measure)
    for name, text, measure in _COUNTERS:
        yield _by_task(CounterMetricFamily(name, text, labels=TASK_LABELS), tasks, measure)
    for name, text, histogram in _HISTOGRAMS:
        family = HistogramMetricFamily(name, text, labels=TASK_LABELS)
        for task in tasks:
            durations = histogram(task)
            family.add_metric(_labels(task), _buckets(durations), durations.total_seconds)
        yield family
    now = clock()
    age = GaugeMetricFamily(
        "prectr_snapshot_age_seconds", "Time since the task's last snapshot here.", labels=TASK_LABELS
    )
    # Not negative where the clock was set back.
    yield _by_task(
        age, tasks, lambda task: _snapshot_stat(task, lambda saved: max(0.0, now - (saved.created_at or now)))
    )
    yield consumer_lag_metric((_labels(task), task.lag) for task in tasks)
    yield _watermark_lag_metrics(tasks)
    counted = [(task, task.counts) for task in tasks if task.counts is not None]
    yield from outcome_metrics(
        [(_labels(task), counts.outcomes) for task, counts in counted if counts.outcomes is not None], TASK_LABELS
    )
    yield dead_letter_metric(_dead_letter_counts(counted), TASK_LABELS)
    yield from level_metrics(
        [(_labels(task), counts.level_counts) for task, counts in counted if counts.level_counts], TASK_LABELS
    )


def _by_task(family: Family, tasks: Sequence["TaskStatus"], measure: _Measure) -> Family:
    return add_samples(family, ((_labels(task), measure(task)) for task in tasks))


def _labels(task: "TaskStatus") -> list[str]:
    return [task.stage, str(task.partition)]


def _dead_letter_counts(
    counted: "Iterable[tuple[TaskStatus, TaskCounts]]",
) -> Iterator[tuple[list[str], dict[str, int]]]:
    for task, counts in counted:
        if counts.outcomes is not None:
            yield _labels(task), dict(counts.dead_letters)


def _watermark_lag_metrics(tasks: Sequence["TaskStatus"]) -> Metric:
    latest = max((task.counts.max_watermark for task in tasks if task.counts is not None), default=0)
    return watermark_lag_metric(
        # A task may tell more of itself than it had counted at its last commit.
        (_labels(task), None if task.watermark is None else max(0.0, (latest - task.watermark) / 1000))
        for task in tasks
    )


def _buckets(durations: DurationBuckets) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKET_BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(durations.counts), strict=True))
