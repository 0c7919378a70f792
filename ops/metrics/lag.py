"""The metrics of how far a reader of a partition is behind, replayed or live: in records and in event time."""

from collections.abc import Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import add_samples

TASK_LABELS: tuple[str, str] = ("stage", "partition")
"""The labels of what is told of a task."""


def consumer_lag_metric(samples: Iterable[tuple[Sequence[str], float | None]]) -> Metric:
    """Records by task, None where the broker has not told yet."""
    return add_samples(
        GaugeMetricFamily(
            "prectr_consumer_lag_records",
            "Records of the partition that have been written and not taken yet.",
            labels=TASK_LABELS,
        ),
        samples,
    )


def watermark_lag_metric(samples: Iterable[tuple[Sequence[str], float | None]]) -> Metric:
    """Seconds by task, None where it has no watermark yet."""
    return add_samples(
        GaugeMetricFamily(
            "prectr_watermark_lag_seconds",
            "Largest watermark of any task, as far as it is known here, less this one's, event time.",
            labels=TASK_LABELS,
        ),
        samples,
    )
