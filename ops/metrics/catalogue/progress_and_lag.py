"""Metrics of the section "Progress and lag"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

_TASK: Final = ("stage", "partition")

BROKER_UNREACHABLE_SECONDS: Final = MetricDefinition(
    "prectr_broker_unreachable_seconds",
    "gauge",
    (),
    ("stream", "train", "monitor", "ingest"),
    "Time since Kafka last answered the process, in seconds; 0 while it answers.",
    'max(prectr_broker_unreachable_seconds{job="stream"}) > 0',
)
TASK_OFFSET: Final = MetricDefinition(
    "prectr_task_offset",
    "gauge",
    _TASK,
    ("stream",),
    "Offset of the next record that the task reads.",
    "delta(prectr_task_offset[5m]) == 0",
)
CONSUMER_LAG_RECORDS: Final = MetricDefinition(
    "prectr_consumer_lag_records",
    "gauge",
    _TASK,
    ("stream", "train"),
    "Records of the partition that are not read yet.",
    "sum by (stage) (prectr_consumer_lag_records)",
)
EMITTED_RECORDS: Final = MetricDefinition(
    "prectr_emitted_records_total",
    "counter",
    _TASK,
    ("stream",),
    "Records that the task has emitted since the start of the log, over all its owners.",
    'sum(rate(prectr_emitted_records_total{stage="aggregate"}[5m]))',
)
WATERMARK_TIMESTAMP_SECONDS: Final = MetricDefinition(
    "prectr_watermark_timestamp_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Watermark of the task: event time, in seconds since the epoch.",
    "scalar(max(prectr_watermark_timestamp_seconds)) - prectr_watermark_timestamp_seconds",
)
WATERMARK_LAG_SECONDS: Final = MetricDefinition(
    "prectr_watermark_lag_seconds",
    "gauge",
    _TASK,
    ("stream", "replay"),
    "Watermark of the task behind the largest one known to the process, in seconds of event time.",
    'max by (stage, partition) (prectr_watermark_lag_seconds{job="stream"})',
)
LOW_WATERMARK_TIMESTAMP_SECONDS: Final = MetricDefinition(
    "prectr_low_watermark_timestamp_seconds",
    "gauge",
    (),
    ("replay",),
    "Lowest watermark of all tasks: event time, in seconds since the epoch.",
    "prectr_low_watermark_timestamp_seconds * 1000",
)
LAST_EVENT_TIMESTAMP_SECONDS: Final = MetricDefinition(
    "prectr_last_event_timestamp_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "When the newest event that the task has read since this process opened it arrived at the broker, in seconds since "
    "the epoch.",
    'time() - max(prectr_last_event_timestamp_seconds{job="stream"})',
)
LONGEST_USUAL_SILENCE_SECONDS: Final = MetricDefinition(
    "prectr_longest_usual_silence_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "How many seconds may pass without an event before that is conspicuous, by the rate of the latest: 60 to 600.",
    'time() - max(prectr_last_event_timestamp_seconds{job="stream"}) > '
    'min(prectr_longest_usual_silence_seconds{job="stream"})',
)
LATE_RECORDS: Final = MetricDefinition(
    "prectr_late_records_total",
    "counter",
    (),
    ("train", "replay"),
    "Records that arrived behind the merged watermark.",
    'increase(prectr_late_records_total{job="train"}[10m]) > 0',
)
MICROBATCH_RECORDS: Final = MetricDefinition(
    "prectr_microbatch_records_total",
    "counter",
    _TASK,
    ("stream",),
    "Records that the task has processed in micro-batches since this process opened it.",
    "rate(prectr_microbatch_records_total[5m]) / rate(prectr_microbatch_seconds_count[5m])",
)
MICROBATCH_SECONDS: Final = MetricDefinition(
    "prectr_microbatch_seconds",
    "histogram",
    _TASK,
    ("stream",),
    "Duration of a micro-batch of the task, including its transaction, in seconds.",
    "histogram_quantile(0.99, sum by (stage, le) (rate(prectr_microbatch_seconds_bucket[5m])))",
)
TRANSACTION_SECONDS: Final = MetricDefinition(
    "prectr_transaction_seconds",
    "histogram",
    _TASK,
    ("stream",),
    "Duration of a transaction of the task, from its first record to the response to its commit, in seconds.",
    "rate(prectr_transaction_seconds_sum[5m]) / rate(prectr_transaction_seconds_count[5m])",
)

SECTION: Final = MetricSection(
    "Progress and lag",
    (
        BROKER_UNREACHABLE_SECONDS,
        TASK_OFFSET,
        CONSUMER_LAG_RECORDS,
        EMITTED_RECORDS,
        WATERMARK_TIMESTAMP_SECONDS,
        WATERMARK_LAG_SECONDS,
        LOW_WATERMARK_TIMESTAMP_SECONDS,
        LAST_EVENT_TIMESTAMP_SECONDS,
        LONGEST_USUAL_SILENCE_SECONDS,
        LATE_RECORDS,
        MICROBATCH_RECORDS,
        MICROBATCH_SECONDS,
        TRANSACTION_SECONDS,
    ),
    "",
)
