"""The metrics of a trainer of the live system: what it has learned, how well, where its time goes, how fresh it is."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.model.models.prectr.components import components_of
from prectr.model.quality.sketch import QualitySketch
from prectr.ops.metrics.exporter import add_samples
from prectr.ops.metrics.lag import consumer_lag_metric
from prectr.ops.metrics.quality import late_records_metric, quality_metrics, trained_pages_metric
from prectr.ops.training.evaluated_sinks import EvaluatedSink
from prectr.ops.training.failure_marker import failed_since
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.replay.run_checkpoint import list_checkpoints

if TYPE_CHECKING:
    from prectr.model.config import TrainerConfig
    from prectr.model.training.instrumentation import InstrumentedTrainer
    from prectr.ops.training.quality_publisher import QualityPublisher
    from prectr.stream.kafka.io.sink_runner import LiveSinkRunner


_IDLE_WINDOW: Final = 30.0
"""Seconds over which it is said how much of the time the device computes nothing."""


class ModelTrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a model learns, since the start of the process.

    seconds: by step of a batch. losses: nats, by part of the loss, summed over the impressions learned from.
    gradient_norm: of the last batch that was looked at. newest: largest effective close learned from (ms). rates: the
    step of each kind of weights. hard_negatives: made by the model; margin_hits: of these, nearer than their margin;
    None where it makes none.
    """

    phase_seconds: Mapping[str, float]
    losses: Mapping[str, float]
    batches: int
    impressions: int
    gradient_norm: float | None
    newest_close_time: int | None
    learning_rates: Mapping[str, float] = {}
    hard_negatives: int | None = None
    margin_violations: int | None = None


class TrainerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a trainer does, besides what it has learned.

    models: by name. waited: seconds spent waiting for examples. heard: largest watermark of any source (ms), None where
    none has one. published, dropped: stretches of quality that have arrived at the broker, and that never did.
    lag: by partition of the examples, records that have been written and not read yet; None where that is unknown.
    idle: share of the time in which the device computed nothing; None where nothing has been seen of it yet.
    """

    models: Mapping[str, ModelTrainingStatus]
    wait_seconds: float
    latest_watermark: int | None
    published_windows: int
    dropped_windows: int
    lag: Sequence[int | None] = ()
    idle_ratio: float | None = None


class TrainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer exports; counts are since the start of the run, and nothing in it may change afterwards.

    pages_trained: by model. quality: by model, then by segment, as `Quality.segments()` gives them. checkpoint: when
    the newest was written, seconds since the epoch; None before the first. learning: None where nobody watched.
    refused: whether training ended at a loss that is not finite, and nothing was saved since.
    """

    pages_trained: Mapping[str, int]
    quality: Mapping[str, Mapping[str, QualitySketch]]
    late_records: int
    checkpoint_time: float | None
    status: TrainerStatus | None = None
    loss_not_finite: bool = False


def train_snapshot(
    sinks: Mapping[str, EvaluatedSink], late_records: int, run_dir: Path, status: TrainerStatus | None = None
) -> TrainSnapshot:
    """What a trainer exports now. behind: records that came out of order. run_dir: where its checkpoints lie."""
    newest = list_checkpoints(run_dir / "checkpoints")[:1]
    checkpoint_time = newest[0].stat().st_mtime if newest else None
    return TrainSnapshot(
        pages_trained={name: sink.pages_trained for name, sink in sinks.items()},
        quality={name: sink.quality.segments() for name, sink in sinks.items()},
        late_records=late_records,
        checkpoint_time=checkpoint_time,
        status=status,
        loss_not_finite=failed_since(run_dir, checkpoint_time),
    )


class IdleRatio:
    """The share of the last half minute, or of what there is of it, in which a device computed nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples = deque([(clock(), 0.0)])

    def update(self, busy: float) -> float | None:
        """As of now. busy: seconds that it has computed for, since the start; None at the very start."""
        now = self._clock()
        self._samples.append((now, busy))
        while now - self._samples[1][0] >= _IDLE_WINDOW:
            self._samples.popleft()
        then, busy_then = self._samples[0]
        # What a device does is known a little after it was done.
        return min(1.0, max(0.0, 1 - (busy - busy_then) / (now - then))) if now > then else None


def trainer_status(
    trainers: "Mapping[str, InstrumentedTrainer]",
    run: "LiveSinkRunner",
    publisher: "QualityPublisher",
    idle_ratio: IdleRatio,
) -> TrainerStatus:
    """How a trainer does now."""
    watermarks = [
        watermark
        for watermark in run.reader.state().merged_watermark.source_watermarks
        if MIN_WATERMARK < watermark < MAX_WATERMARK
    ]
    return TrainerStatus(
        models={name: _model_status(trainer) for name, trainer in trainers.items()},
        wait_seconds=run.wait_seconds,
        latest_watermark=max(watermarks, default=None),
        published_windows=publisher.published_windows,
        dropped_windows=publisher.dropped_windows,
        lag=run.reader.lag(),
        idle_ratio=idle_ratio.update(sum(trainer.stats.device_busy_seconds for trainer in trainers.values())),
    )


def _model_status(trainer: "InstrumentedTrainer") -> ModelTrainingStatus:
    stats = trainer.stats
    return ModelTrainingStatus(
        phase_seconds=dict(stats.phase_seconds),
        losses=dict(stats.losses),
        batches=stats.batches,
        impressions=stats.impressions,
        gradient_norm=stats.gradient_norm,
        newest_close_time=stats.latest_close,
        learning_rates=learning_rates(trainer.config),
        hard_negatives=stats.counts.get("hard_negatives"),
        margin_violations=stats.counts.get("margin_violations"),
    )


def train_metrics(snapshot: TrainSnapshot, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    """The metrics of a trainer. clock: seconds since the epoch."""
    yield trained_pages_metric(snapshot.pages_trained)
    yield late_records_metric(snapshot.late_records)
    if snapshot.checkpoint_time is not None:
        yield GaugeMetricFamily(
            "prectr_checkpoint_age_seconds",
            "Time since the newest checkpoint; none is written while nothing comes to learn from.",
            # Not negative where the clock was set back.
            max(0.0, clock() - snapshot.checkpoint_time),
        )
    yield GaugeMetricFamily(
        "prectr_loss_not_finite",
        "1 where training ended since a loss was not finite, and no checkpoint was written after that; else 0.",
        float(snapshot.loss_not_finite),
    )
    if snapshot.status is not None:
        yield from _status_metrics(snapshot.status)
    yield from quality_metrics(snapshot.quality)


def _status_metrics(status: TrainerStatus) -> Iterator[Metric]:
    models = status.models
    seconds = [([name, phase], value) for name, model in models.items() for phase, value in model.phase_seconds.items()]
    yield add_samples(
        CounterMetricFamily(
            "prectr_train_seconds",
            "Time of the trainer by step: collate, forward, backward and step of each model, and wait (for examples, "
            "without a model).",
            labels=["model", "phase"],
        ),
        [*seconds, (["", "wait"], status.wait_seconds)],
    )
    yield add_samples(
        CounterMetricFamily(
            "prectr_loss_nats",
            "Sum of each part of the loss over the impressions learned from; loss: which part.",
            labels=["model", "loss"],
        ),
        (([name, loss], value) for name, model in models.items() for loss, value in model.losses.items()),
    )
    yield add_samples(
        CounterMetricFamily("prectr_trained_batches", "Batches learned from since the start.", labels=["model"]),
        (([name], model.batches) for name, model in models.items()),
    )
    yield add_samples(
        CounterMetricFamily(
            "prectr_trained_impressions", "Impressions learned from since the start.", labels=["model"]
        ),
        (([name], model.impressions) for name, model in models.items()),
    )
    yield add_samples(
        CounterMetricFamily(
            "prectr_hard_negatives", "Hard negatives that the model has made since the start.", labels=["model"]
        ),
        (([name], model.hard_negatives) for name, model in models.items()),
    )
    yield add_samples(
        CounterMetricFamily(
            "prectr_margin_violations",
            "Hard negatives whose log-odds were nearer to their impression's than the margin.",
            labels=["model"],
        ),
        (([name], model.margin_violations) for name, model in models.items()),
    )
    yield add_samples(
        GaugeMetricFamily(
            "prectr_learning_rate", "Step of the optimizer, by parameter group.", labels=["model", "param_group"]
        ),
        (
            ([name, param_group], rate)
            for name, model in models.items()
            for param_group, rate in model.learning_rates.items()
        ),
    )
    if status.idle_ratio is not None:
        yield GaugeMetricFamily(
            "prectr_device_idle_ratio",
            "Share of the last half minute in which the device computed nothing for any model.",
            status.idle_ratio,
        )
    yield consumer_lag_metric((["train", str(partition)], lag) for partition, lag in enumerate(status.lag))
    yield add_samples(
        GaugeMetricFamily(
            "prectr_gradient_norm",
            "Euclidean norm of the gradient of one batch in 64, over all weights that took part.",
            labels=["model"],
        ),
        (([name], model.gradient_norm) for name, model in models.items()),
    )
    latest_watermark = status.latest_watermark
    yield add_samples(
        GaugeMetricFamily(
            "prectr_model_staleness_seconds",
            "Event time from the last page that the model has learned from to where the stream is.",
            labels=["model"],
        ),
        (
            (
                [name],
                None
                if latest_watermark is None or model.newest_close_time is None
                else max(0.0, (latest_watermark - model.newest_close_time) / 1000),
            )
            for name, model in models.items()
        ),
    )
    yield CounterMetricFamily(
        "prectr_quality_windows_published",
        "Records of quality that have arrived in model-quality.",
        status.published_windows,
    )
    yield CounterMetricFamily(
        "prectr_quality_windows_dropped",
        "Stretches of quality that were never published, since too many waited for the broker.",
        status.dropped_windows,
    )


def learning_rates(config: "TrainerConfig") -> dict[str, float]:
    """The step of each kind of weights that the model has: of ids, of dense layers, of the encoder."""
    if config.model == "lr":
        return {"sparse": config.ftrl_alpha}
    rates = {"sparse": config.embedding_lr, "dense": config.dense_lr}
    return (
        rates | {"encoder": config.encoder_lr}
        if config.has_relevance_component and components_of(config).joint_training
        else rates
    )
