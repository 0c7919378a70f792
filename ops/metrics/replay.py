"""The metrics of a replay: what it has counted so far, and its models' quality."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.model.quality.sketch import QualitySketch
from prectr.ops.metrics.exporter import LOOPBACK, Exporter
from prectr.ops.metrics.lag import watermark_lag_metric
from prectr.ops.metrics.level import level_metrics
from prectr.ops.metrics.outcome import dead_letter_metric, outcome_metrics
from prectr.ops.metrics.quality import late_records_metric, quality_metrics, trained_pages_metric
from prectr.state.aggregates import LevelCounts
from prectr.stream.join.outcomes import Outcomes


class PartitionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far one task of a stage is. watermark_lag_seconds: the largest watermark of any task less this one's."""

    stage: str
    partition: int
    watermark_lag_seconds: float


class ReplaySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay exports; counts are since the start of the run, and nothing in it may change afterwards.

    dead_letters: by reason. pages_trained: by model. quality: by model, then by segment (`all`, `new`, `low`,
    `active`), as `Quality.segments()` gives them. levels: of all pages that a model has scored; None without a model.
    event_time_ms: the watermark of the whole replay, if any.
    """

    outcomes: Outcomes
    dead_letters: Mapping[str, int]
    late_records: int
    pages_trained: Mapping[str, int]
    quality: Mapping[str, Mapping[str, QualitySketch]]
    partitions: tuple[PartitionProgress, ...] = ()
    level_counts: LevelCounts | None = None
    low_watermark_ms: int | None = None


ReplayMetrics: TypeAlias = Exporter[ReplaySnapshot]


def serve_metrics(port: int, address: str = LOOPBACK) -> ReplayMetrics:
    """Serve a replay's metrics over HTTP on `address`:`port` (0: any free port) until closed.

    PrectrError: the port is taken or the address not ours; UsageError: no such port.
    """
    return Exporter(replay_metrics, port, address)


def replay_metrics(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    """The metrics of a replay."""
    yield from _pipeline_metrics(snapshot)
    yield from _progress_metrics(snapshot)
    yield from quality_metrics(snapshot.quality)


def _pipeline_metrics(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    yield from outcome_metrics([(["join"], snapshot.outcomes)], ["stage"])
    yield dead_letter_metric([(["join"], snapshot.dead_letters)], ["stage"])
    yield from level_metrics(
        [] if snapshot.level_counts is None else [(["aggregate"], snapshot.level_counts)], ["stage"]
    )
    yield late_records_metric(snapshot.late_records)


def _progress_metrics(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    yield watermark_lag_metric(
        ([task.stage, str(task.partition)], task.watermark_lag_seconds) for task in snapshot.partitions
    )
    if snapshot.low_watermark_ms is not None:
        yield GaugeMetricFamily(
            "prectr_low_watermark_timestamp_seconds",
            "Lowest watermark, seconds since the epoch.",
            snapshot.low_watermark_ms / 1000,
        )
    yield trained_pages_metric(snapshot.pages_trained)
