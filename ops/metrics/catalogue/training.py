"""Metrics of the section "Training"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

TRAINED_PAGES: Final = MetricDefinition(
    "prectr_trained_pages_total",
    "counter",
    ("model",),
    ("train", "replay"),
    "Pages that the model has trained on since the start of the run.",
    'rate(prectr_trained_pages_total{job="train"}[5m])',
)
TRAINED_BATCHES: Final = MetricDefinition(
    "prectr_trained_batches_total",
    "counter",
    ("model",),
    ("train",),
    "Batches that the model has trained on since the process started.",
    "rate(prectr_trained_impressions_total[5m]) / rate(prectr_trained_batches_total[5m])",
)
TRAINED_IMPRESSIONS: Final = MetricDefinition(
    "prectr_trained_impressions_total",
    "counter",
    ("model",),
    ("train",),
    "Impressions that the model has trained on since the process started.",
    "rate(prectr_trained_impressions_total[5m])",
)
TRAIN_SECONDS: Final = MetricDefinition(
    "prectr_train_seconds_total",
    "counter",
    ("model", "phase"),
    ("train",),
    "Time of the trainer, by phase of a batch and model (empty for wait, which all share), in seconds.",
    "sum by (phase) (rate(prectr_train_seconds_total[5m]))",
)
LOSS_NATS: Final = MetricDefinition(
    "prectr_loss_nats_total",
    "counter",
    ("model", "loss"),
    ("train",),
    "Sum over the trained impressions of each part of the loss, in nats.",
    "rate(prectr_loss_nats_total[5m]) / on (model) group_left rate(prectr_trained_impressions_total[5m])",
)
LEARNING_RATE: Final = MetricDefinition(
    "prectr_learning_rate",
    "gauge",
    ("model", "param_group"),
    ("train",),
    "Learning rate, by parameter group.",
    "prectr_learning_rate",
)
GRADIENT_NORM: Final = MetricDefinition(
    "prectr_gradient_norm",
    "gauge",
    ("model",),
    ("train",),
    "L2 norm of the gradient of all parameters of a batch; sampled every 64 batches.",
    "prectr_gradient_norm",
)
LOSS_NOT_FINITE: Final = MetricDefinition(
    "prectr_loss_not_finite",
    "gauge",
    (),
    ("train",),
    "Whether training stopped at a loss that is not finite, without a checkpoint since: 1 or 0.",
    "prectr_loss_not_finite == 1",
)
HARD_NEGATIVES: Final = MetricDefinition(
    "prectr_hard_negatives_total",
    "counter",
    ("model",),
    ("train",),
    "Hard negatives that the model has generated since the process started.",
    "rate(prectr_hard_negatives_total[5m]) / rate(prectr_trained_impressions_total[5m])",
)
MARGIN_VIOLATIONS: Final = MetricDefinition(
    "prectr_margin_violations_total",
    "counter",
    ("model",),
    ("train",),
    "Hard negatives whose log-odds were within the margin of their impression.",
    "rate(prectr_margin_violations_total[5m]) / rate(prectr_hard_negatives_total[5m])",
)
DEVICE_IDLE_RATIO: Final = MetricDefinition(
    "prectr_device_idle_ratio",
    "gauge",
    (),
    ("train",),
    "Share of the last 30 s in which the device computed nothing, 0 to 1.",
    "prectr_device_idle_ratio > 0.9",
)
CHECKPOINT_AGE_SECONDS: Final = MetricDefinition(
    "prectr_checkpoint_age_seconds",
    "gauge",
    (),
    ("train",),
    "Age of the newest checkpoint, in seconds; none is written while there is nothing to train on.",
    "prectr_checkpoint_age_seconds > 300",
)
MODEL_STALENESS_SECONDS: Final = MetricDefinition(
    "prectr_model_staleness_seconds",
    "gauge",
    ("model",),
    ("train",),
    "Event time from the last page that the model has trained on to the newest watermark, in seconds.",
    "prectr_model_staleness_seconds > 600",
)
QUALITY_WINDOWS_PUBLISHED: Final = MetricDefinition(
    "prectr_quality_windows_published_total",
    "counter",
    (),
    ("train",),
    "Quality windows that the broker has acknowledged in model-quality.",
    "rate(prectr_quality_windows_published_total[5m]) == 0",
)
QUALITY_WINDOWS_DROPPED: Final = MetricDefinition(
    "prectr_quality_windows_dropped_total",
    "counter",
    (),
    ("train",),
    "Quality windows dropped because too many were waiting for the broker.",
    "increase(prectr_quality_windows_dropped_total[1h]) > 0",
)

SECTION: Final = MetricSection(
    "Training",
    (
        TRAINED_PAGES,
        TRAINED_BATCHES,
        TRAINED_IMPRESSIONS,
        TRAIN_SECONDS,
        LOSS_NATS,
        LEARNING_RATE,
        GRADIENT_NORM,
        LOSS_NOT_FINITE,
        HARD_NEGATIVES,
        MARGIN_VIOLATIONS,
        DEVICE_IDLE_RATIO,
        CHECKPOINT_AGE_SECONDS,
        MODEL_STALENESS_SECONDS,
        QUALITY_WINDOWS_PUBLISHED,
        QUALITY_WINDOWS_DROPPED,
    ),
    "`phase` is wait, collate, forward, backward or step. `loss` is click, monotonicity, "
    "stage_one_kl, rehearsal or debias. `param_group` is sparse, dense or encoder. On a GPU "
    "the idle ratio is measured by the clock of the device; elsewhere it is the share of time "
    "outside forward, backward and step. Only `prectr-v2` generates hard negatives.",
)
