"""The metrics of a replay: record outcomes, progress, and the quality of its models."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec
from prometheus_client.metrics_core import Metric

from prectr.model.quality.sketch import QualitySketch
from prectr.ops.metrics.catalogue.progress_and_lag import (
    LATE_RECORDS,
    LOW_WATERMARK_TIMESTAMP_SECONDS,
    WATERMARK_LAG_SECONDS,
)
from prectr.ops.metrics.exporter import LOOPBACK, Exporter
from prectr.ops.metrics.level import level_metrics
from prectr.ops.metrics.outcome import dead_letter_metric, outcome_metrics
from prectr.ops.metrics.quality import quality_metrics, trained_pages_metric
from prectr.state.aggregates import LevelCounts
from prectr.stream.join.outcomes import Outcomes


class PartitionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a task. watermark_lag_seconds: its watermark behind the largest of all tasks, event time."""

    stage: str
    partition: int
    watermark_lag_seconds: float


class ReplaySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay exports, counted since the start of the run. Immutable, including its parts.

    dead_letters: by reason. pages_trained: by model. quality: by model, then segment, from `Quality.segments()`.
    partitions: of each task. level_counts: of all scored pages; None without a model. low_watermark_ms: the lowest
    watermark of all tasks, in ms since the epoch; None before the first.
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
    """Serve the metrics of a replay over HTTP until closed.

    Args:
        port: 0 picks a free one.
        address: of this machine.

    Raises:
        UsageError: the port is out of range.
        PrectrError: the port is in use, or the address does not belong to this machine.
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
    yield LATE_RECORDS.value(snapshot.late_records)


def _progress_metrics(snapshot: ReplaySnapshot) -> Iterator[Metric]:
    yield WATERMARK_LAG_SECONDS.metric(
        ([task.stage, str(task.partition)], task.watermark_lag_seconds) for task in snapshot.partitions
    )
    if snapshot.low_watermark_ms is not None:
        yield LOW_WATERMARK_TIMESTAMP_SECONDS.value(snapshot.low_watermark_ms / 1000)
    yield trained_pages_metric(snapshot.pages_trained)
