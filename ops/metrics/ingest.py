"""The metrics of `prectr ingest`, by topic and partition."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.ingest import (
    INGEST_DEAD_LETTERS,
    INGEST_EVENTS,
    INGEST_LAG_RECORDS,
    INGEST_LEFT_OUT,
    INGEST_RECORDS,
    INGEST_TIMESTAMP_SECONDS,
    INGEST_WAITING,
)
from prectr.ops.metrics.definition import MetricDefinition

if TYPE_CHECKING:
    from prectr.stream.kafka.ingest.ingest_task import IngestStatus

_Measure: TypeAlias = Callable[["IngestStatus"], float | None]

_MEASURES: Final[tuple[tuple[MetricDefinition, _Measure], ...]] = (
    (INGEST_RECORDS, lambda task: task.records),
    (INGEST_LAG_RECORDS, lambda task: task.lag),
    (INGEST_WAITING, lambda task: float(task.is_waiting)),
    (INGEST_TIMESTAMP_SECONDS, lambda task: None if task.read_time is None else task.read_time / 1000),
)
_COUNTS_BY_LABEL: Final[tuple[tuple[MetricDefinition, Callable[["IngestStatus"], dict[str, int]]], ...]] = (
    (INGEST_EVENTS, lambda task: {"page": task.pages, "click": task.clicks}),
    (INGEST_DEAD_LETTERS, lambda task: task.dead_letters),
    (INGEST_LEFT_OUT, lambda task: task.left_out),
)


def ingest_metrics(tasks: Sequence["IngestStatus"]) -> Iterator[Metric]:
    """The metrics of the tasks that are assigned to this process now."""
    for definition, measure in _MEASURES:
        yield definition.metric((_labels(task), measure(task)) for task in tasks)
    for definition, counts in _COUNTS_BY_LABEL:
        yield definition.metric(
            ([*_labels(task), label], count) for task in tasks for label, count in sorted(counts(task).items())
        )


def _labels(task: "IngestStatus") -> list[str]:
    return [task.topic, str(task.partition)]
