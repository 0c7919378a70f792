"""Metrics of the section "Monitor"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

QUALITY_RECORDS_RECEIVED: Final = MetricDefinition(
    "prectr_quality_records_received_total",
    "counter",
    (),
    ("monitor",),
    "Records read from model-quality, including repeated ones.",
    "rate(prectr_quality_records_received_total[5m])",
)
QUALITY_RECORDS_REJECTED: Final = MetricDefinition(
    "prectr_quality_records_rejected_total",
    "counter",
    ("reason",),
    ("monitor",),
    "Records of model-quality that were rejected, by reason: `version` (of another release), `corrupt`, `range` (an "
    "impossible number or name), `model` (unknown), `time` (of a time that has not come), `limit` (no room).",
    "increase(prectr_quality_records_rejected_total[5m]) > 0",
)
QUALITY_WINDOWS_RETAINED: Final = MetricDefinition(
    "prectr_quality_windows_retained",
    "gauge",
    (),
    ("monitor",),
    "Quality windows of 60 s that the monitor holds.",
    "prectr_quality_windows_retained",
)
LIVE_TRAINERS: Final = MetricDefinition(
    "prectr_live_trainers",
    "gauge",
    ("model",),
    ("monitor",),
    "Trainer processes that have published quality in the last 45 s.",
    "prectr_live_trainers < 1",
)
QUALITY_LAST_RECORD_AGE_SECONDS: Final = MetricDefinition(
    "prectr_quality_last_record_age_seconds",
    "gauge",
    ("model",),
    ("monitor",),
    "Time since any trainer of the model has published quality, in seconds.",
    "prectr_quality_last_record_age_seconds > 120",
)
PUBLISHED_CHECKPOINT_AGE_SECONDS: Final = MetricDefinition(
    "prectr_published_checkpoint_age_seconds",
    "gauge",
    ("model",),
    ("monitor",),
    "Age of the newest published checkpoint of the model, in seconds; also grows once its trainer is gone.",
    "prectr_published_checkpoint_age_seconds > 300",
)
QUALITY_TIMESTAMP_SECONDS: Final = MetricDefinition(
    "prectr_quality_timestamp_seconds",
    "gauge",
    ("model",),
    ("monitor",),
    "Event time up to which the quality of the model is known, in seconds since the epoch.",
    "scalar(max(prectr_watermark_timestamp_seconds)) - prectr_quality_timestamp_seconds",
)

SECTION: Final = MetricSection(
    "Monitor",
    (
        QUALITY_RECORDS_RECEIVED,
        QUALITY_RECORDS_REJECTED,
        QUALITY_WINDOWS_RETAINED,
        LIVE_TRAINERS,
        QUALITY_LAST_RECORD_AGE_SECONDS,
        PUBLISHED_CHECKPOINT_AGE_SECONDS,
        QUALITY_TIMESTAMP_SECONDS,
    ),
    "",
)
