"""The metrics of a trainer of the live system: what it has learned, how well, where its time goes, how fresh it is."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from model.sketch import QualitySketch
from ops.exporter import with_samples
from ops.outcome_metrics import outcome_metrics
from ops.quality_metrics import out_of_order, quality_metrics, trained_pages
from ops.scored import Scored
from stream.clock import BEFORE_TIME, END_OF_TIME
from stream.cut import cuts
from stream.outcomes import Outcomes

if TYPE_CHECKING:
    from model.watched import Watch, WatchedTrainer
    from ops.quality_feed import QualityFeed
    from stream.kafka.training import LiveTraining


class ModelLearning(msgspec.Struct, frozen=True, kw_only=True):
    """How a model learns, since the start of the process.

    seconds: by step of a batch. losses: nats, by part of the loss, summed over the impressions learned from.
    gradient_norm: of the last batch that was looked at. newest: largest effective close learned from (ms).
    """

    seconds: Mapping[str, float]
    losses: Mapping[str, float]
    impressions: int
    gradient_norm: float | None
    newest: int | None


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """How a trainer does, besides what it has learned.

    models: by name. waited: seconds spent waiting for examples. heard: largest watermark of any source (ms), None where
    none has one. published, dropped: stretches of quality that have arrived at the broker, and that never did.
    outcomes: how every record of the events ended, as last heard.
    """

    models: Mapping[str, ModelLearning]
    waited: float
    heard: int | None
    published: int
    dropped: int
    outcomes: Outcomes


class TrainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer exports; counts are since the start of the run, and nothing in it may change afterwards.

    pages_trained: by model. quality: by model, then by segment, as `Quality.segments()` gives them. checkpoint: when
    the newest was written, seconds since the epoch; None before the first. learning: None where nobody watched.
    """

    pages_trained: Mapping[str, int]
    quality: Mapping[str, Mapping[str, QualitySketch]]
    out_of_order: int
    checkpoint: float | None
    learning: Learning | None = None


def train_snapshot(
    scored: Mapping[str, Scored], behind: int, run_dir: Path, learning: Learning | None = None
) -> TrainSnapshot:
    """What a trainer exports now. behind: records that came out of order. run_dir: where its checkpoints lie."""
    newest = cuts(run_dir / "checkpoints")[:1]
    return TrainSnapshot(
        pages_trained={name: sink.pages_trained for name, sink in scored.items()},
        quality={name: sink.quality.segments() for name, sink in scored.items()},
        out_of_order=behind,
        checkpoint=newest[0].stat().st_mtime if newest else None,
        learning=learning,
    )


def learning_of(trainers: "Mapping[str, WatchedTrainer]", run: "LiveTraining", feed: "QualityFeed") -> Learning:
    """How a trainer does now."""
    heard = [mark for mark in run.reader.state().progress.watermarks if BEFORE_TIME < mark < END_OF_TIME]
    return Learning(
        models={name: _learning(trainer.watch) for name, trainer in trainers.items()},
        waited=run.waited,
        heard=max(heard, default=None),
        published=feed.published,
        dropped=feed.dropped,
        outcomes=run.outcomes,
    )


def _learning(watch: "Watch") -> ModelLearning:
    return ModelLearning(
        seconds=dict(watch.seconds),
        losses=dict(watch.losses),
        impressions=watch.impressions,
        gradient_norm=watch.gradient_norm,
        newest=watch.newest,
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
    if snapshot.learning is not None:
        yield from _learning_metrics(snapshot.learning)
    yield from quality_metrics(snapshot.quality)


def _learning_metrics(learning: Learning) -> Iterator[Metric]:
    models = learning.models
    yield from outcome_metrics(learning.outcomes)
    seconds = [([name, step], value) for name, model in models.items() for step, value in model.seconds.items()]
    yield with_samples(
        CounterMetricFamily(
            "prectr_batch_seconds",
            "Time of the trainer by step: collate, forward, backward and step of each model, and wait (for examples, "
            'without a model). Example: 1 - sum(rate(prectr_batch_seconds_total{stage!~"wait|collate"}[5m])) is the '
            "share of time in which nothing is computed.",
            labels=["model", "stage"],
        ),
        [*seconds, (["", "wait"], learning.waited)],
    )
    yield with_samples(
        CounterMetricFamily(
            "prectr_loss_nats",
            "Sum of each part of the loss over the impressions learned from. Example: "
            "rate(prectr_loss_nats_total[5m]) / on(model) group_left rate(prectr_trained_impressions_total[5m]).",
            labels=["model", "type"],
        ),
        (([name, part], value) for name, model in models.items() for part, value in model.losses.items()),
    )
    yield with_samples(
        CounterMetricFamily("prectr_trained_impressions", "Impressions learned from.", labels=["model"]),
        (([name], model.impressions) for name, model in models.items()),
    )
    yield with_samples(
        GaugeMetricFamily(
            "prectr_gradient_norm",
            "Euclidean norm of the gradient of one batch in 64, over all weights that took part.",
            labels=["model"],
        ),
        (([name], model.gradient_norm) for name, model in models.items()),
    )
    heard = learning.heard
    yield with_samples(
        GaugeMetricFamily(
            "prectr_model_freshness_seconds",
            "Event time from the last page that the model has learned from to where the stream is. Example: "
            "prectr_model_freshness_seconds > 600.",
            labels=["model"],
        ),
        (
            ([name], None if heard is None or model.newest is None else max(0.0, (heard - model.newest) / 1000))
            for name, model in models.items()
        ),
    )
    yield CounterMetricFamily(
        "prectr_published_stretches", "Records of quality that have arrived in model-quality.", learning.published
    )
    yield CounterMetricFamily(
        "prectr_dropped_stretches",
        "Stretches of quality that were never published, since too many waited for the broker. Example: "
        "increase(prectr_dropped_stretches_total[1h]) > 0.",
        learning.dropped,
    )
