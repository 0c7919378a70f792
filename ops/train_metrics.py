"""The metrics of a trainer of the live system: what it has learned, how well, and how old its checkpoint is."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from model.sketch import QualitySketch
from ops.quality_metrics import out_of_order, quality_metrics, trained_pages
from ops.scored import Scored
from stream.cut import cuts


class TrainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer exports; counts are since the start of the run, and nothing in it may change afterwards.

    pages_trained: by model. quality: by model, then by segment, as `Quality.segments()` gives them. checkpoint: when
    the newest was written, seconds since the epoch; None before the first.
    """

    pages_trained: Mapping[str, int]
    quality: Mapping[str, Mapping[str, QualitySketch]]
    out_of_order: int
    checkpoint: float | None


def train_snapshot(scored: Mapping[str, Scored], behind: int, run_dir: Path) -> TrainSnapshot:
    """What a trainer exports now. behind: records that came out of order. run_dir: where its checkpoints lie."""
    newest = cuts(run_dir / "checkpoints")[:1]
    return TrainSnapshot(
        pages_trained={name: sink.pages_trained for name, sink in scored.items()},
        quality={name: sink.quality.segments() for name, sink in scored.items()},
        out_of_order=behind,
        checkpoint=newest[0].stat().st_mtime if newest else None,
    )


def train_metrics(snapshot: TrainSnapshot, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of a trainer. clock: seconds since the epoch."""
    yield trained_pages(snapshot.pages_trained)
    yield out_of_order(snapshot.out_of_order)
    if snapshot.checkpoint is not None:
        yield GaugeMetricFamily(
            "prectr_checkpoint_age_seconds",
            "Time since the newest checkpoint; none is written while nothing comes to learn from. Example: "
            "prectr_checkpoint_age_seconds > 300.",
            # Not negative where the clock was set back.
            max(0.0, clock() - snapshot.checkpoint),
        )
    yield from quality_metrics(snapshot.quality)
