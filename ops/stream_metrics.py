"""The metrics of a stream process: how each task that it has now does."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ops.exporter import Family, with_samples

if TYPE_CHECKING:
    from state.snapshotter import SnapshotProgress
    from stream.kafka.task import TaskFacts

_Measure: TypeAlias = Callable[["TaskFacts"], float | None]

_GAUGES: Final[tuple[tuple[str, str, _Measure], ...]] = (
    (
        "prectr_task_position",
        "Offset of the next record that the task takes. Example: delta(prectr_task_position[5m]) == 0 where one stands "
        "still.",
        lambda task: task.position,
    ),
    (
        "prectr_replayed_records_behind",
        "Records to be taken again in silence until the state reaches the commit. Example: above 0 after a restart, "
        "then 0.",
        lambda task: task.behind,
    ),
    (
        "prectr_watermark_timestamp_seconds",
        "Event time up to which the task is done, seconds since the epoch. Example: "
        "scalar(max(prectr_watermark_timestamp_seconds)) - prectr_watermark_timestamp_seconds, how far each is behind.",
        lambda task: None if task.watermark is None else task.watermark / 1000,
    ),
    (
        "prectr_snapshot_seconds",
        "What the task's last snapshot took, upload included. Example: 0.4, well below --snapshot-every.",
        lambda task: None if (saved := _saved(task)) is None else saved.seconds,
    ),
    (
        "prectr_snapshot_uploaded_bytes",
        "Uploaded for the task's last snapshot; files that were there already are not sent again. Example: 2097152.",
        lambda task: None if (saved := _saved(task)) is None else saved.uploaded,
    ),
)
_COUNTERS: Final[tuple[tuple[str, str, _Measure], ...]] = (
    (
        "prectr_emitted_records",
        "Records that the task has put out since the beginning, whoever had it then. Example: "
        'sum(rate(prectr_emitted_records_total{stage="queries"}[5m])) is examples a second.',
        lambda task: task.emitted,
    ),
    (
        "prectr_snapshot_failures",
        "Snapshots that could not be saved or pruned since the task was opened here. Example: "
        "increase(prectr_snapshot_failures_total[10m]) > 0.",
        lambda task: None if task.snapshots is None else task.snapshots.failures,
    ),
    (
        "prectr_snapshots_damaged",
        "Snapshots found damaged, and passed over, when the task was opened here. Example: "
        "prectr_snapshots_damaged_total > 0.",
        lambda task: None if task.snapshots is None else task.snapshots.damaged,
    ),
)


def stream_metrics(tasks: Sequence["TaskFacts"], clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of the tasks that a process has now: one that has gone elsewhere has none here.

    clock: seconds since the epoch.
    """
    for name, text, measure in _GAUGES:
        yield _by_task(GaugeMetricFamily(name, text, labels=["stage", "partition"]), tasks, measure)
    for name, text, measure in _COUNTERS:
        yield _by_task(CounterMetricFamily(name, text, labels=["stage", "partition"]), tasks, measure)
    now = clock()
    age = GaugeMetricFamily(
        "prectr_snapshot_age_seconds",
        "Time since the task's last snapshot here. Example: prectr_snapshot_age_seconds > 300.",
        labels=["stage", "partition"],
    )
    # Not negative where the clock was set back.
    yield _by_task(age, tasks, lambda task: None if (at := _saved_at(task)) is None else max(0.0, now - at))


def _by_task(family: Family, tasks: Sequence["TaskFacts"], measure: _Measure) -> Family:
    return with_samples(family, (([task.stage, str(task.partition)], measure(task)) for task in tasks))


def _saved(task: "TaskFacts") -> "SnapshotProgress | None":
    """How the task's snapshots go, once there is one."""
    return task.snapshots if _saved_at(task) is not None else None


def _saved_at(task: "TaskFacts") -> float | None:
    return None if task.snapshots is None else task.snapshots.created
