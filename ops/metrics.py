"""The Prometheus exporter of a replay: what it has counted so far, and its models' quality.

Nothing on the event path touches Prometheus: the runner hands over a whole snapshot now and then, and a scrape
renders whichever is the latest. Labels are only stage, partition, model, segment, window, outcome, reason and type.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

import msgspec
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from model.sketch import QualitySketch
from state.errors import PrectrError, UsageError
from stream.outcomes import Outcomes

WHOLE_RUN: Final = "run"
"""The value of the label `window`: a replay's figures are of everything since its start."""


class PartitionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far one task of a stage is. watermark_lag_seconds: the largest watermark of any task less this one's."""

    stage: str
    partition: int
    watermark_lag_seconds: float


class ReplaySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay exports; counts are since the start of the run, and nothing in it may change afterwards.

    dead_letters: by reason. pages_trained: by model. quality: by model, then by segment (`all`, `new`, `low`,
    `active`), as `Quality.segments()` gives them. event_time_ms: the watermark of the whole replay, if any.
    """

    outcomes: Outcomes
    dead_letters: Mapping[str, int]
    out_of_order: int
    pages_trained: Mapping[str, int]
    quality: Mapping[str, Mapping[str, QualitySketch]]
    partitions: tuple[PartitionProgress, ...] = ()
    event_time_ms: int | None = None


_QUALITY_GAUGES: Final[tuple[tuple[str, str, Callable[[QualitySketch], float | None]], ...]] = (
    ("prectr_auc", "Probability that a clicked impression outscores an unclicked one.", lambda sketch: sketch.auc),
    (
        "prectr_gauc",
        "Mean AUC within a page, weighted by impressions; ties half, single-class pages left out.",
        lambda sketch: sketch.gauc,
    ),
    ("prectr_log_loss", "Log loss, nats an impression.", lambda sketch: sketch.log_loss),
    (
        "prectr_normalized_entropy",
        "Log loss over that of always predicting the observed click rate.",
        lambda sketch: sketch.normalized_entropy,
    ),
    ("prectr_calibration_ratio", "Predicted over observed clicks.", lambda sketch: sketch.calibration),
)
_QUALITY_SUMS: Final[tuple[tuple[str, str, Callable[[QualitySketch], float]], ...]] = (
    ("prectr_scored_pages", "Pages scored before they were learned from.", lambda sketch: sketch.pages),
    ("prectr_scored_impressions", "Items on scored pages.", lambda sketch: sketch.impressions),
    ("prectr_scored_clicks", "Clicked items on scored pages.", lambda sketch: sketch.clicks),
    ("prectr_predicted_clicks", "Sum of predicted click probabilities.", lambda sketch: sketch.predicted),
    ("prectr_log_loss_nats", "Sum of log losses.", lambda sketch: sketch.loss),
    ("prectr_gauc_weighted", "Sum of page AUC times impressions.", lambda sketch: sketch.gauc_sum),
    ("prectr_gauc_weight", "Impressions of pages with both classes.", lambda sketch: sketch.gauc_weight),
)


class _SnapshotCollector(Collector):
    """Renders the latest snapshot; `snapshot` is replaced as a whole, which is atomic."""

    def __init__(self) -> None:
        self.snapshot: ReplaySnapshot | None = None

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        if snapshot is not None:
            yield from _pipeline(snapshot)
            yield from _progress(snapshot)
            yield from _quality(snapshot)


def _counter(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in values:
        family.add_metric([value], number)
    return family


def _ends(counts: msgspec.Struct, leave_out: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """Outcomes that only grow; what is open or waiting goes down again and is a gauge."""
    for name, number in msgspec.structs.asdict(counts).items():
        if name not in leave_out:
            yield name, number


def _pipeline(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    counts = snapshot.outcomes
    kinds = (
        ("impression", counts.impressions.received),
        ("click", counts.clicks.received),
        ("unreadable", counts.unreadable),
    )
    yield _counter("prectr_events", "Records read, by what they are.", "type", kinds)
    yield _counter(
        "prectr_impressions",
        "Result pages by how they ended.",
        "outcome",
        _ends(counts.impressions, ("received", "open")),
    )
    yield _counter(
        "prectr_clicks", "Clicks by how they ended.", "outcome", _ends(counts.clicks, ("received", "waiting"))
    )
    yield _counter("prectr_dead_letters", "Dead letters by reason.", "reason", snapshot.dead_letters.items())
    yield CounterMetricFamily(
        "prectr_out_of_order", "Records behind the line that everything downstream follows.", snapshot.out_of_order
    )
    yield GaugeMetricFamily(
        "prectr_clicks_waiting", "Clicks whose page has not come, within its window.", counts.clicks.waiting
    )


def _progress(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    pages_open = GaugeMetricFamily("prectr_pages_open", "Pages whose window has not passed.", labels=["stage"])
    pages_open.add_metric(["sessions"], snapshot.outcomes.impressions.open)
    yield pages_open
    lag = GaugeMetricFamily(
        "prectr_watermark_lag_seconds",
        "Largest watermark of any task less this one's, event time.",
        labels=["stage", "partition"],
    )
    for task in snapshot.partitions:
        lag.add_metric([task.stage, str(task.partition)], task.watermark_lag_seconds)
    yield lag
    if snapshot.event_time_ms is not None:
        yield GaugeMetricFamily(
            "prectr_event_time_seconds", "Lowest watermark, seconds since the epoch.", snapshot.event_time_ms / 1000
        )
    yield _counter("prectr_trained_pages", "Pages learned from.", "model", snapshot.pages_trained.items())


def _quality(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    sketches = [
        (model, segment, sketch) for model, segments in snapshot.quality.items() for segment, sketch in segments.items()
    ]
    for name, text, measure in _QUALITY_GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=["model", "segment", "window"])
        for model, segment, sketch in sketches:
            figure = measure(sketch)
            if figure is not None:
                gauge.add_metric([model, segment, WHOLE_RUN], figure)
        yield gauge
    for name, text, total in _QUALITY_SUMS:
        counter = CounterMetricFamily(name, text, labels=["model", "segment"])
        for model, segment, sketch in sketches:
            counter.add_metric([model, segment], total(sketch))
        yield counter


class ReplayMetrics:
    """A running exporter; `close` it, or use it in a `with`."""

    def __init__(self, port: int, address: str) -> None:
        """Serve on `address`:`port`; 0 takes any free port. PrectrError: it cannot be had."""
        if not 0 <= port <= 65535:
            raise UsageError(
                f"metrics port {port} is out of range: give one from 1 to 65535, or 0 for any that is free"
            )
        self._collector = _SnapshotCollector()
        registry = CollectorRegistry()
        registry.register(self._collector)
        try:
            self._server, self._thread = start_http_server(port, addr=address, registry=registry)
        except OSError as error:
            raise PrectrError(
                f"cannot serve metrics on {address}:{port}: {error.strerror or error}; "
                "another process may hold the port: give another one with --metrics-port"
            ) from error

    @property
    def port(self) -> int:
        """The port that is served."""
        return self._server.server_port

    def update(self, snapshot: ReplaySnapshot) -> None:
        """Let scrapes from now on see `snapshot`."""
        self._collector.snapshot = snapshot

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_metrics(port: int, address: str = "127.0.0.1") -> ReplayMetrics:
    """Serve metrics over HTTP on `address`:`port` (0: any free port) until closed.

    PrectrError: the port is taken or the address not ours; UsageError: no such port.
    """
    return ReplayMetrics(port, address)
