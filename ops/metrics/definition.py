"""What is known of a metric: name, type, labels, jobs and meaning. Exporters and docs/metrics.md are made from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

Job = Literal["stream", "train", "monitor", "replay", "ingest"]
"""The kind of process that exports a metric; the name of its scrape job."""
Samples = Iterable[tuple[Sequence[str], float | None]]
"""Label values and value; None where there is no value yet, and so no sample."""


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """A metric.

    name: as exported; counters end in `_total`. meaning: the HELP text, with the unit. example: a PromQL expression.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    jobs: tuple[Job, ...]
    meaning: str
    example: str

    def metric(self, samples: Samples, labels: Sequence[str] | None = None) -> Metric:
        """The counter or gauge with these samples. labels: those of the samples, if they are not all."""
        names = self.labels if labels is None else labels
        kind = CounterMetricFamily if self.type == "counter" else GaugeMetricFamily
        family = kind(self.name, self.meaning, labels=names)
        for values, value in samples:
            if value is not None:
                family.add_metric(values, value)
        return family

    def value(self, value: float) -> Metric:
        """The counter or gauge without labels, with this value."""
        return self.metric([((), value)])

    def histogram(self) -> HistogramMetricFamily:
        """The histogram, without samples yet."""
        return HistogramMetricFamily(self.name, self.meaning, labels=self.labels)


class MetricSection(NamedTuple):
    """A section of docs/metrics.md. note: text below its table."""

    title: str
    metrics: tuple[MetricDefinition, ...]
    note: str
