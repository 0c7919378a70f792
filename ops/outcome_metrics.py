"""The metrics of how records end, replayed or live: each exactly one way."""

from collections.abc import Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ops.exporter import with_samples
from stream.outcomes import Outcomes


def outcome_metrics(counts: Outcomes) -> Iterator[Metric]:
    """What became of everything that was read, as far as it is known."""
    yield with_samples(
        CounterMetricFamily("prectr_events", "Records read, by what they are.", labels=["type"]),
        [
            (["impression"], counts.impressions.received),
            (["click"], counts.clicks.received),
            (["unreadable"], counts.unreadable),
        ],
    )
    yield with_samples(
        CounterMetricFamily("prectr_impressions", "Result pages by how they ended.", labels=["outcome"]),
        _ends(counts.impressions, ("received", "open")),
    )
    yield with_samples(
        CounterMetricFamily("prectr_clicks", "Clicks by how they ended.", labels=["outcome"]),
        _ends(counts.clicks, ("received", "waiting")),
    )
    yield GaugeMetricFamily(
        "prectr_clicks_waiting", "Clicks whose page has not come, within its window.", counts.clicks.waiting
    )
    yield with_samples(
        GaugeMetricFamily("prectr_pages_open", "Pages whose window has not passed.", labels=["stage"]),
        [(["sessions"], counts.impressions.open)],
    )


def _ends(counts: msgspec.Struct, leave_out: tuple[str, ...]) -> Iterator[tuple[list[str], float]]:
    """Outcomes that only grow; what is open or waiting goes down again and is a gauge."""
    for name, number in msgspec.structs.asdict(counts).items():
        if name not in leave_out:
            yield [name], number
