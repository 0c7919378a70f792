"""The metrics of the monitor: quality of the cluster by window, and who publishes it."""

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.exporter import add_samples
from prectr.ops.metrics.quality import WHOLE_RUN, quality_metrics
from prectr.ops.monitor.current_quality import LIVENESS_TIMEOUT, MonitorSnapshot, last_record_age


def monitor_metrics(snapshot: MonitorSnapshot, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of the monitor. clock: seconds since the epoch."""
    now = clock()
    by_model = {name: [source for source in snapshot.sources if source.model == name] for name in snapshot.quality}
    yield CounterMetricFamily(
        "prectr_quality_records_received", "Records of quality taken, repeated ones among them.", snapshot.received
    )
    yield add_samples(
        CounterMetricFamily(
            "prectr_quality_records_rejected",
            "Records of quality that could not be used: of another version, or damaged.",
            labels=["reason"],
        ),
        (([reason], count) for reason, count in snapshot.rejected.items()),
    )
    yield GaugeMetricFamily(
        "prectr_quality_windows_retained", "Stretches of a minute that are held.", snapshot.retained_windows
    )
    yield add_samples(
        GaugeMetricFamily(
            "prectr_live_trainers",
            f"Processes that have published quality within {LIVENESS_TIMEOUT:.0f} s.",
            labels=["model"],
        ),
        (
            ([name], sum(last_record_age(source, now) < LIVENESS_TIMEOUT for source in sources))
            for name, sources in by_model.items()
        ),
    )
    yield add_samples(
        GaugeMetricFamily(
            "prectr_quality_last_record_age_seconds",
            "Time since any process of the model has published.",
            labels=["model"],
        ),
        (([name], min(last_record_age(source, now) for source in sources)) for name, sources in by_model.items()),
    )
    yield add_samples(
        GaugeMetricFamily(
            "prectr_published_checkpoint_age_seconds",
            "Time since the newest checkpoint of the model that was published; goes on when its trainer is gone.",
            labels=["model"],
        ),
        (
            ([name], max(0.0, now - max(source.checkpoint_time for source in sources) / 1000))
            for name, sources in by_model.items()
        ),
    )
    yield add_samples(
        GaugeMetricFamily(
            "prectr_quality_timestamp_seconds",
            "Event time that the model's quality reaches to, seconds since the epoch.",
            labels=["model"],
        ),
        (([name], quality.event_time_end / 1000) for name, quality in snapshot.quality.items()),
    )
    yield from quality_metrics(
        {name: quality.windows[WHOLE_RUN] for name, quality in snapshot.quality.items()},
        {
            name: {window: segments for window, segments in quality.windows.items() if window != WHOLE_RUN}
            for name, quality in snapshot.quality.items()
        },
    )
