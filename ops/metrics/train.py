"""The metrics of a trainer of the live system: what it has learned, how well, where its time goes, how fresh it is."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.model.models.prectr.components import parts_of
from prectr.model.quality.sketch import QualitySketch
from prectr.ops.metrics.exporter import with_samples
from prectr.ops.metrics.lag import consumer_lag
from prectr.ops.metrics.quality import out_of_order, quality_metrics, trained_pages
from prectr.ops.training.evaluated_sinks import Scored
from prectr.ops.training.failure_marker import refused_since
from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.replay.run_checkpoint import cuts

if TYPE_CHECKING:
    from prectr.model.config import TrainerConfig
    from prectr.model.training.instrumentation import WatchedTrainer
    from prectr.ops.training.quality_publisher import QualityFeed
    from prectr.stream.kafka.io.sink_runner import LiveTraining


_IDLE_OVER: Final = 30.0
"""Seconds over which it is said how much of the time the device computes nothing."""


class ModelLearning(msgspec.Struct, frozen=True, kw_only=True):
    """How a model learns, since the start of the process.

    seconds: by step of a batch. losses: nats, by part of the loss, summed over the impressions learned from.
    gradient_norm: of the last batch that was looked at. newest: largest effective close learned from (ms). rates: the
    step of each kind of weights. hard_negatives: made by the model; margin_hits: of these, nearer than their margin;
    None where it makes none.
    """

    seconds: Mapping[str, float]
    losses: Mapping[str, float]
    batches: int
    impressions: int
    gradient_norm: float | None
    newest: int | None
    rates: Mapping[str, float] = {}
    hard_negatives: int | None = None
    margin_hits: int | None = None


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """How a trainer does, besides what it has learned.

    models: by name. waited: seconds spent waiting for examples. heard: largest watermark of any source (ms), None where
    none has one. published, dropped: stretches of quality that have arrived at the broker, and that never did.
    lag: by partition of the examples, records that have been written and not read yet; None where that is unknown.
    idle: share of the time in which the device computed nothing; None where nothing has been seen of it yet.
    """

    models: Mapping[str, ModelLearning]
    waited: float
    heard: int | None
    published: int
    dropped: int
    lag: Sequence[int | None] = ()
    idle: float | None = None


class TrainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer exports; counts are since the start of the run, and nothing in it may change afterwards.

    pages_trained: by model. quality: by model, then by segment, as `Quality.segments()` gives them. checkpoint: when
    the newest was written, seconds since the epoch; None before the first. learning: None where nobody watched.
    refused: whether training ended at a loss that is not finite, and nothing was saved since.
    """

    pages_trained: Mapping[str, int]
    quality: Mapping[str, Mapping[str, QualitySketch]]
    out_of_order: int
    checkpoint: float | None
    learning: Learning | None = None
    refused: bool = False


def train_snapshot(
    scored: Mapping[str, Scored], behind: int, run_dir: Path, learning: Learning | None = None
) -> TrainSnapshot:
    """What a trainer exports now. behind: records that came out of order. run_dir: where its checkpoints lie."""
    newest = cuts(run_dir / "checkpoints")[:1]
    checkpoint = newest[0].stat().st_mtime if newest else None
    return TrainSnapshot(
        pages_trained={name: sink.pages_trained for name, sink in scored.items()},
        quality={name: sink.quality.segments() for name, sink in scored.items()},
        out_of_order=behind,
        checkpoint=checkpoint,
        learning=learning,
        refused=refused_since(run_dir, checkpoint),
    )


class Idle:
    """The share of the last half minute, or of what there is of it, in which a device computed nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen = deque([(clock(), 0.0)])

    def ratio(self, busy: float) -> float | None:
        """As of now. busy: seconds that it has computed for, since the start; None at the very start."""
        now = self._clock()
        self._seen.append((now, busy))
        while now - self._seen[1][0] >= _IDLE_OVER:
            self._seen.popleft()
        then, busy_then = self._seen[0]
        # What a device does is known a little after it was done.
        return min(1.0, max(0.0, 1 - (busy - busy_then) / (now - then))) if now > then else None


def learning_of(
    trainers: "Mapping[str, WatchedTrainer]", run: "LiveTraining", feed: "QualityFeed", idle: Idle
) -> Learning:
    """How a trainer does now."""
    heard = [mark for mark in run.reader.state().progress.watermarks if BEFORE_TIME < mark < END_OF_TIME]
    return Learning(
        models={name: _learning(trainer) for name, trainer in trainers.items()},
        waited=run.waited,
        heard=max(heard, default=None),
        published=feed.published,
        dropped=feed.dropped,
        lag=run.reader.lag(),
        idle=idle.ratio(sum(trainer.watch.busy for trainer in trainers.values())),
    )


def _learning(trainer: "WatchedTrainer") -> ModelLearning:
    watch = trainer.watch
    return ModelLearning(
        seconds=dict(watch.seconds),
        losses=dict(watch.losses),
        batches=watch.batches,
        impressions=watch.impressions,
        gradient_norm=watch.gradient_norm,
        newest=watch.newest,
        rates=learning_rates(trainer.config),
        hard_negatives=watch.counts.get("hard_negatives"),
        margin_hits=watch.counts.get("margin_hits"),
    )


def train_metrics(snapshot: TrainSnapshot, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of a trainer. clock: seconds since the epoch."""
    yield trained_pages(snapshot.pages_trained)
    yield out_of_order(snapshot.out_of_order)
    if snapshot.checkpoint is not None:
        yield GaugeMetricFamily(
            "prectr_checkpoint_age_seconds",
            "Time since the newest checkpoint; none is written while nothing comes to learn from.",
            # Not negative where the clock was set back.
            max(0.0, clock() - snapshot.checkpoint),
        )
    yield GaugeMetricFamily(
        "prectr_loss_not_finite",
        "1 where training ended since a loss was not finite, and no checkpoint was written after that; else 0.",
        float(snapshot.refused),
    )
    if snapshot.learning is not None:
        yield from _learning_metrics(snapshot.learning)
    yield from quality_metrics(snapshot.quality)


def _learning_metrics(learning: Learning) -> Iterator[Metric]:
    models = learning.models
    seconds = [([name, step], value) for name, model in models.items() for step, value in model.seconds.items()]
    yield with_samples(
        CounterMetricFamily(
            "prectr_batch_seconds",
            "Time of the trainer by step: collate, forward, backward and step of each model, and wait (for examples, "
            "without a model).",
            labels=["model", "stage"],
        ),
        [*seconds, (["", "wait"], learning.waited)],
    )
    yield with_samples(
        CounterMetricFamily(
            "prectr_loss_nats",
            "Sum of each part of the loss over the impressions learned from; reason: what it is for.",
            labels=["model", "reason"],
        ),
        (([name, part], value) for name, model in models.items() for part, value in model.losses.items()),
    )
    yield with_samples(
        CounterMetricFamily("prectr_trained_batches", "Batches learned from since the start.", labels=["model"]),
        (([name], model.batches) for name, model in models.items()),
    )
    yield with_samples(
        CounterMetricFamily(
            "prectr_trained_impressions", "Impressions learned from since the start.", labels=["model"]
        ),
        (([name], model.impressions) for name, model in models.items()),
    )
    yield with_samples(
        CounterMetricFamily(
            "prectr_hard_negatives", "Hard negatives that the model has made since the start.", labels=["model"]
        ),
        (([name], model.hard_negatives) for name, model in models.items()),
    )
    yield with_samples(
        CounterMetricFamily(
            "prectr_margin_hits",
            "Hard negatives whose log-odds were nearer to their impression's than the margin.",
            labels=["model"],
        ),
        (([name], model.margin_hits) for name, model in models.items()),
    )
    yield with_samples(
        GaugeMetricFamily(
            "prectr_learning_rate", "Step of the optimizer, by kind of weights.", labels=["model", "stage"]
        ),
        (([name, kind], rate) for name, model in models.items() for kind, rate in model.rates.items()),
    )
    if learning.idle is not None:
        yield GaugeMetricFamily(
            "prectr_device_idle_ratio",
            "Share of the last half minute in which the device computed nothing for any model.",
            learning.idle,
        )
    yield consumer_lag((["train", str(partition)], lag) for partition, lag in enumerate(learning.lag))
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
            "Event time from the last page that the model has learned from to where the stream is.",
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
        "Stretches of quality that were never published, since too many waited for the broker.",
        learning.dropped,
    )


def learning_rates(config: "TrainerConfig") -> dict[str, float]:
    """The step of each kind of weights that the model has: of ids, of dense layers, of the encoder."""
    if config.model == "lr":
        return {"ids": config.ftrl_alpha}
    rates = {"ids": config.embedding_rate, "dense": config.dense_rate}
    return rates | {"encoder": config.encoder_rate} if config.has_relevance_part and parts_of(config).joint else rates
