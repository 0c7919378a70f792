"""The metrics of the monitor: quality of the cluster by window, and who publishes it."""

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import with_samples
from prectr.ops.metrics.quality import WHOLE_RUN, quality_metrics
from prectr.ops.monitor.current_quality import ALIVE_SECONDS, Reading, silence


def monitor_metrics(reading: Reading, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of the monitor. clock: seconds since the epoch."""
    now = clock()
    by_model = {name: [source for source in reading.sources if source.model == name] for name in reading.quality}
    yield CounterMetricFamily(
        "prectr_received_sketches", "Records of quality taken, repeated ones among them.", reading.received
    )
    yield with_samples(
        CounterMetricFamily(
            "prectr_refused_sketches",
            "Records of quality that could not be used: of another version, or damaged.",
            labels=["reason"],
        ),
        (([reason], count) for reason, count in reading.refused.items()),
    )
    yield GaugeMetricFamily("prectr_held_sketches", "Stretches of a minute that are held.", reading.stretches)
    yield with_samples(
        GaugeMetricFamily(
            "prectr_quality_sources",
            f"Processes that have published quality within {ALIVE_SECONDS:.0f} s.",
            labels=["model"],
        ),
        (
            ([name], sum(silence(source, now) < ALIVE_SECONDS for source in sources))
            for name, sources in by_model.items()
        ),
    )
    yield with_samples(
        GaugeMetricFamily(
            "prectr_quality_silence_seconds",
            "Time since any process of the model has published.",
            labels=["model"],
        ),
        (([name], min(silence(source, now) for source in sources)) for name, sources in by_model.items()),
    )
    yield with_samples(
        GaugeMetricFamily(
            "prectr_published_checkpoint_age_seconds",
            "Time since the newest checkpoint of the model that was published; goes on when its trainer is gone.",
            labels=["model"],
        ),
        (
            ([name], max(0.0, now - max(source.checkpoint for source in sources) / 1000))
            for name, sources in by_model.items()
        ),
    )
    yield with_samples(
        GaugeMetricFamily(
            "prectr_quality_timestamp_seconds",
            "Event time that the model's quality reaches to, seconds since the epoch.",
            labels=["model"],
        ),
        (([name], quality.until / 1000) for name, quality in reading.quality.items()),
    )
    yield from quality_metrics(
        {name: quality.windows[WHOLE_RUN] for name, quality in reading.quality.items()},
        {
            name: {window: segments for window, segments in quality.windows.items() if window != WHOLE_RUN}
            for name, quality in reading.quality.items()
        },
    )
