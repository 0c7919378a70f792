"""The metrics of the monitor: quality of the cluster by window, and the trainers that publish it."""

import time
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.monitor import (
    LIVE_TRAINERS,
    PUBLISHED_CHECKPOINT_AGE_SECONDS,
    QUALITY_LAST_RECORD_AGE_SECONDS,
    QUALITY_RECORDS_RECEIVED,
    QUALITY_RECORDS_REJECTED,
    QUALITY_TIMESTAMP_SECONDS,
    QUALITY_WINDOWS_RETAINED,
)
from prectr.ops.metrics.quality import WHOLE_RUN, quality_metrics
from prectr.ops.monitor.current_quality import LIVENESS_TIMEOUT, MonitorSnapshot, last_record_age


def monitor_metrics(snapshot: MonitorSnapshot, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of the monitor. clock: returns seconds since the epoch."""
    yield QUALITY_RECORDS_RECEIVED.value(snapshot.received)
    yield QUALITY_RECORDS_REJECTED.metric(([reason], count) for reason, count in snapshot.rejected.items())
    yield QUALITY_WINDOWS_RETAINED.value(snapshot.retained_windows)
    yield from _source_metrics(snapshot, clock())
    yield QUALITY_TIMESTAMP_SECONDS.metric(
        ([name], quality.event_time_end / 1000) for name, quality in snapshot.quality.items()
    )
    yield from quality_metrics(
        {name: quality.windows[WHOLE_RUN] for name, quality in snapshot.quality.items()},
        {
            name: {window: segments for window, segments in quality.windows.items() if window != WHOLE_RUN}
            for name, quality in snapshot.quality.items()
        },
    )


def _source_metrics(snapshot: MonitorSnapshot, now: float) -> Iterator[Metric]:
    """What is known of the trainers of each model. now: seconds since the epoch."""
    by_model = {name: [source for source in snapshot.sources if source.model == name] for name in snapshot.quality}
    yield LIVE_TRAINERS.metric(
        ([name], sum(last_record_age(source, now) < LIVENESS_TIMEOUT for source in sources))
        for name, sources in by_model.items()
    )
    yield QUALITY_LAST_RECORD_AGE_SECONDS.metric(
        ([name], min(last_record_age(source, now) for source in sources)) for name, sources in by_model.items()
    )
    yield PUBLISHED_CHECKPOINT_AGE_SECONDS.metric(
        ([name], max(0.0, now - max(source.checkpoint_time for source in sources) / 1000))
        for name, sources in by_model.items()
    )
