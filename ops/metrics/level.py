"""The metrics of the aggregates: impressions and clicks by relevance level, over all queries."""

from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.record_outcomes import AGGREGATED_CLICKS, AGGREGATED_IMPRESSIONS
from prectr.state.aggregates import LEVELS, LevelCounts


def level_metrics(level_counts: Sequence[tuple[Sequence[str], LevelCounts]], labels: Sequence[str]) -> Iterator[Metric]:
    """Impressions and clicks by relevance level.

    Args:
        level_counts: pairs of label values and counts, of each part of the queries.
        labels: the names of these labels.
    """
    for definition, start in ((AGGREGATED_IMPRESSIONS, 0), (AGGREGATED_CLICKS, len(LEVELS))):
        yield definition.metric(
            (
                ([*values, str(level)], counts[start + index])
                for values, counts in level_counts
                for index, level in enumerate(LEVELS)
            ),
            [*labels, "relevance_level"],
        )
