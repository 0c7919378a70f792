"""The metrics of the aggregates: impressions and clicks by relevance level, over all queries."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import add_samples
from prectr.state.aggregates import LEVELS, LevelCounts


def level_metrics(level_counts: Sequence[tuple[Sequence[str], LevelCounts]], labels: Sequence[str]) -> Iterator[Metric]:
    """Impressions and clicks by level. counted: of each part of the queries, with the values of its `labels`."""
    for start, name, text in (
        (0, "prectr_aggregated_impressions", "Impressions of all queries by relevance level, labels final."),
        (len(LEVELS), "prectr_aggregated_clicks", "Clicked impressions of all queries by relevance level."),
    ):
        yield add_samples(
            CounterMetricFamily(name, text, labels=[*labels, "relevance_level"]),
            (
                ([*values, str(level)], counts[start + index])
                for values, counts in level_counts
                for index, level in enumerate(LEVELS)
            ),
        )
