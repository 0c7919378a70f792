"""The metrics of how records end, replayed or live: each exactly one way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import add_samples
from prectr.stream.join.outcomes import Outcomes

Labels: TypeAlias = Sequence[str]


def outcome_metrics(counts_by_labels: Sequence[tuple[Labels, Outcomes]], labels: Labels) -> Iterator[Metric]:
    """What became of everything that was read, as far as it is known.

    counted: of each part of what is read, with the values of its `labels`.
    """
    yield add_samples(
        CounterMetricFamily("prectr_events", "Events read, by type.", labels=[*labels, "type"]),
        (
            ([*values, kind], count)
            for values, counts in counts_by_labels
            for kind, count in (
                ("page", counts.pages.received),
                ("click", counts.clicks.received),
                ("unreadable", counts.unreadable),
            )
        ),
    )
    yield add_samples(
        CounterMetricFamily("prectr_pages", "Result pages by how they ended.", labels=[*labels, "outcome"]),
        _outcome_samples(((values, counts.pages) for values, counts in counts_by_labels), ("received", "open")),
    )
    yield add_samples(
        CounterMetricFamily("prectr_clicks", "Clicks by how they ended.", labels=[*labels, "outcome"]),
        _outcome_samples(((values, counts.clicks) for values, counts in counts_by_labels), ("received", "waiting")),
    )
    yield add_samples(
        GaugeMetricFamily(
            "prectr_pending_clicks", "Clicks whose page has not come, within its window.", labels=list(labels)
        ),
        ((values, counts.clicks.waiting) for values, counts in counts_by_labels),
    )
    yield add_samples(
        GaugeMetricFamily("prectr_pending_pages", "Result pages whose window has not passed.", labels=list(labels)),
        ((values, counts.pages.open) for values, counts in counts_by_labels),
    )


def dead_letter_metric(counts_by_labels: Iterable[tuple[Labels, Mapping[str, int]]], labels: Labels) -> Metric:
    """What was no valid event. counted: by reason, of each part of what is read, with the values of its `labels`."""
    return add_samples(
        CounterMetricFamily("prectr_dead_letters", "Dead letters by reason.", labels=[*labels, "reason"]),
        (([*values, reason], count) for values, counts in counts_by_labels for reason, count in counts.items()),
    )


def _outcome_samples(
    counts_by_labels: Iterable[tuple[Labels, msgspec.Struct]], excluded: tuple[str, ...]
) -> Iterator[tuple[list[str], float]]:
    """Outcomes that only grow; what is open or waiting goes down again and is a gauge."""
    for values, counts in counts_by_labels:
        for name, number in msgspec.structs.asdict(counts).items():
            if name not in excluded:
                yield [*values, name], number
