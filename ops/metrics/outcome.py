"""The metrics of how records end, replayed or live: each exactly one way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import with_samples
from prectr.stream.join.outcomes import Outcomes

Labels: TypeAlias = Sequence[str]


def outcome_metrics(counted: Sequence[tuple[Labels, Outcomes]], labels: Labels) -> Iterator[Metric]:
    """What became of everything that was read, as far as it is known.

    counted: of each part of what is read, with the values of its `labels`.
    """
    yield with_samples(
        CounterMetricFamily(
            "prectr_events", "Events read, by what they turned out to be.", labels=[*labels, "outcome"]
        ),
        (
            ([*values, kind], count)
            for values, counts in counted
            for kind, count in (
                ("impression", counts.impressions.received),
                ("click", counts.clicks.received),
                ("unreadable", counts.unreadable),
            )
        ),
    )
    yield with_samples(
        CounterMetricFamily("prectr_impressions", "Result pages by how they ended.", labels=[*labels, "outcome"]),
        _ends(((values, counts.impressions) for values, counts in counted), ("received", "open")),
    )
    yield with_samples(
        CounterMetricFamily("prectr_clicks", "Clicks by how they ended.", labels=[*labels, "outcome"]),
        _ends(((values, counts.clicks) for values, counts in counted), ("received", "waiting")),
    )
    yield with_samples(
        GaugeMetricFamily(
            "prectr_clicks_waiting", "Clicks whose page has not come, within its window.", labels=list(labels)
        ),
        ((values, counts.clicks.waiting) for values, counts in counted),
    )
    yield with_samples(
        GaugeMetricFamily("prectr_pages_open", "Result pages whose window has not passed.", labels=list(labels)),
        ((values, counts.impressions.open) for values, counts in counted),
    )


def dead_letters(counted: Iterable[tuple[Labels, Mapping[str, int]]], labels: Labels) -> Metric:
    """What was no valid event. counted: by reason, of each part of what is read, with the values of its `labels`."""
    return with_samples(
        CounterMetricFamily("prectr_dead_letters", "Dead letters by reason.", labels=[*labels, "reason"]),
        (([*values, reason], count) for values, counts in counted for reason, count in counts.items()),
    )


def _ends(
    counted: Iterable[tuple[Labels, msgspec.Struct]], leave_out: tuple[str, ...]
) -> Iterator[tuple[list[str], float]]:
    """Outcomes that only grow; what is open or waiting goes down again and is a gauge."""
    for values, counts in counted:
        for name, number in msgspec.structs.asdict(counts).items():
            if name not in leave_out:
                yield [*values, name], number
