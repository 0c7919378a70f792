"""Every metric that a process exports, in the order of docs/metrics.md.

Labels never carry a user, a query or an item.
"""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition

_TASK: Final = ("stage", "partition")
_SEGMENT: Final = ("model", "segment")
_WINDOW: Final = ("model", "segment", "window")

EVENTS: Final = MetricDefinition(
    "prectr_events_total",
    "counter",
    (*_TASK, "type"),
    ("stream", "replay"),
    "Records read from search-events, by type.",
    'sum by (type) (rate(prectr_events_total{job="stream"}[5m]))',
)
PAGES: Final = MetricDefinition(
    "prectr_pages_total",
    "counter",
    (*_TASK, "outcome"),
    ("stream", "replay"),
    "Result pages, by outcome.",
    'sum by (outcome) (rate(prectr_pages_total{job="stream"}[5m]))',
)
CLICKS: Final = MetricDefinition(
    "prectr_clicks_total",
    "counter",
    (*_TASK, "outcome"),
    ("stream", "replay"),
    "Clicks, by outcome.",
    'sum by (outcome) (rate(prectr_clicks_total{job="stream"}[5m]))',
)
DEAD_LETTERS: Final = MetricDefinition(
    "prectr_dead_letters_total",
    "counter",
    (*_TASK, "reason"),
    ("stream", "replay"),
    "Dead letters, by reason.",
    'sum by (reason) (rate(prectr_dead_letters_total{job="stream"}[5m]))',
)
PENDING_PAGES: Final = MetricDefinition(
    "prectr_pending_pages",
    "gauge",
    _TASK,
    ("stream", "replay"),
    "Result pages whose attribution window is still open.",
    'sum(max by (partition) (prectr_pending_pages{job="stream"}))',
)
PENDING_CLICKS: Final = MetricDefinition(
    "prectr_pending_clicks",
    "gauge",
    _TASK,
    ("stream", "replay"),
    "Clicks that wait for their page, within the attribution window.",
    'sum(max by (partition) (prectr_pending_clicks{job="stream"}))',
)
FUTURE_EVENTS: Final = MetricDefinition(
    "prectr_future_events",
    "gauge",
    _TASK,
    ("stream",),
    "Pages and waiting clicks that are ahead of their partition, until the stream comes to their time or for an hour.",
    'sum(max by (partition) (prectr_future_events{job="stream"}))',
)
FUTURE_EVENT_LEAD_SECONDS: Final = MetricDefinition(
    "prectr_future_event_lead_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "How far the one furthest ahead is ahead of its partition, in seconds of event time; 0 without one.",
    'max(prectr_future_event_lead_seconds{job="stream"})',
)
AGGREGATED_IMPRESSIONS: Final = MetricDefinition(
    "prectr_aggregated_impressions_total",
    "counter",
    (*_TASK, "relevance_level"),
    ("stream", "replay"),
    "Impressions of closed pages, by relevance level, over all queries.",
    'sum by (relevance_level) (rate(prectr_aggregated_impressions_total{job="stream"}[1h]))',
)
AGGREGATED_CLICKS: Final = MetricDefinition(
    "prectr_aggregated_clicks_total",
    "counter",
    (*_TASK, "relevance_level"),
    ("stream", "replay"),
    "Clicked impressions of closed pages, by relevance level, over all queries.",
    'sum by (relevance_level) (rate(prectr_aggregated_clicks_total{job="stream"}[1h])) / sum by '
    '(relevance_level) (rate(prectr_aggregated_impressions_total{job="stream"}[1h]))',
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

RESTORE_REMAINING_RECORDS: Final = MetricDefinition(
    "prectr_restore_remaining_records",
    "gauge",
    _TASK,
    ("stream",),
    "Records left to restore until the state of the task reaches its committed offset.",
    "prectr_restore_remaining_records > 0",
)
RESTORE_SECONDS: Final = MetricDefinition(
    "prectr_restore_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Time that this process took to restore the task: snapshot download, then records, in seconds.",
    "max by (stage) (prectr_restore_seconds)",
)
RESTORED_RECORDS: Final = MetricDefinition(
    "prectr_restored_records_total",
    "counter",
    _TASK,
    ("stream",),
    "Records that the task has reprocessed, with output suppressed, since this process opened it.",
    "sum by (stage) (rate(prectr_restored_records_total[5m]))",
)
STORE_KEYS: Final = MetricDefinition(
    "prectr_store_keys",
    "gauge",
    _TASK,
    ("stream",),
    "Estimated number of keys in the RocksDB store of the task.",
    "sum by (stage) (prectr_store_keys)",
)
STORE_BYTES: Final = MetricDefinition(
    "prectr_store_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Size of the files of the RocksDB store of the task, in bytes.",
    "sum by (stage) (prectr_store_bytes)",
)
STORE_MEMORY_BYTES: Final = MetricDefinition(
    "prectr_store_memory_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Memory of block cache and memtables of the RocksDB store of the task, in bytes.",
    "sum by (instance) (prectr_store_memory_bytes)",
)
STORE_BLOCK_CACHE_HITS: Final = MetricDefinition(
    "prectr_store_block_cache_hits_total",
    "counter",
    _TASK,
    ("stream",),
    "Block cache hits of the RocksDB store since this process opened the task.",
    "rate(prectr_store_block_cache_hits_total[5m]) / (rate(prectr_store_block_cache_hits_total[5m]) + "
    "rate(prectr_store_block_cache_misses_total[5m]))",
)
STORE_BLOCK_CACHE_MISSES: Final = MetricDefinition(
    "prectr_store_block_cache_misses_total",
    "counter",
    _TASK,
    ("stream",),
    "Block cache misses of the RocksDB store since this process opened the task.",
    "sum by (stage) (rate(prectr_store_block_cache_misses_total[5m]))",
)
STORE_WRITE_STALL_SECONDS: Final = MetricDefinition(
    "prectr_store_write_stall_seconds_total",
    "counter",
    _TASK,
    ("stream",),
    "Time for which RocksDB has stalled writes since this process opened the task, in seconds.",
    "rate(prectr_store_write_stall_seconds_total[5m]) > 0.1",
)
SNAPSHOT_AGE_SECONDS: Final = MetricDefinition(
    "prectr_snapshot_age_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Age of the last snapshot of the task, in seconds.",
    "prectr_snapshot_age_seconds > 300",
)
SNAPSHOT_SECONDS: Final = MetricDefinition(
    "prectr_snapshot_seconds",
    "gauge",
    _TASK,
    ("stream",),
    "Duration of the last snapshot of the task, including its upload, in seconds.",
    "max by (stage) (prectr_snapshot_seconds)",
)
SNAPSHOT_BYTES: Final = MetricDefinition(
    "prectr_snapshot_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Size of the last snapshot of the task, including files uploaded before, in bytes.",
    "sum by (stage) (prectr_snapshot_bytes)",
)
SNAPSHOT_UPLOADED_BYTES: Final = MetricDefinition(
    "prectr_snapshot_uploaded_bytes",
    "gauge",
    _TASK,
    ("stream",),
    "Bytes uploaded for the last snapshot of the task; files uploaded before are reused.",
    "prectr_snapshot_uploaded_bytes / prectr_snapshot_bytes",
)
SNAPSHOT_FAILURES: Final = MetricDefinition(
    "prectr_snapshot_failures_total",
    "counter",
    _TASK,
    ("stream",),
    "Snapshots that could not be saved or pruned since this process opened the task.",
    "increase(prectr_snapshot_failures_total[10m]) > 0",
)
SNAPSHOTS_CORRUPT: Final = MetricDefinition(
    "prectr_snapshots_corrupt_total",
    "counter",
    _TASK,
    ("stream",),
    "Corrupt snapshots that were skipped when this process opened the task.",
    "prectr_snapshots_corrupt_total > 0",
)

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

AUC: Final = MetricDefinition(
    "prectr_auc",
    "gauge",
    _WINDOW,
    ("train", "monitor", "replay"),
    "Probability that a clicked impression scores higher than an unclicked one.",
    'prectr_auc{job="monitor", segment="all", window="1h"}',
)
GAUC: Final = MetricDefinition(
    "prectr_gauc",
    "gauge",
    _WINDOW,
    ("train", "monitor", "replay"),
    "AUC within a page, averaged over pages weighted by impressions; ties count half, pages without both "
    "classes are excluded.",
    'prectr_gauc{job="monitor", segment="all", window="1h"} - prectr_gauc{job="monitor", segment="all", '
    'window="1h"} offset 1d',
)
LOG_LOSS: Final = MetricDefinition(
    "prectr_log_loss",
    "gauge",
    _WINDOW,
    ("train", "monitor", "replay"),
    "Mean log loss, in nats per impression.",
    'prectr_log_loss{job="monitor", segment="new", window="24h"}',
)
NORMALIZED_ENTROPY: Final = MetricDefinition(
    "prectr_normalized_entropy",
    "gauge",
    _WINDOW,
    ("train", "monitor", "replay"),
    "Log loss divided by that of always predicting the observed click rate.",
    'prectr_normalized_entropy{job="monitor", window="1h"} > 1',
)
CALIBRATION_RATIO: Final = MetricDefinition(
    "prectr_calibration_ratio",
    "gauge",
    _WINDOW,
    ("train", "monitor", "replay"),
    "Predicted clicks divided by observed clicks.",
    'abs(prectr_calibration_ratio{job="monitor", segment="all", window="1h"} - 1) > 0.2',
)
SCORED_PAGES: Final = MetricDefinition(
    "prectr_scored_pages_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Pages that were scored before the model trained on them.",
    'rate(prectr_scored_pages_total{job="monitor", segment="all"}[5m])',
)
SCORED_IMPRESSIONS: Final = MetricDefinition(
    "prectr_scored_impressions_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Impressions on scored pages.",
    'increase(prectr_scored_clicks_total{job="monitor"}[1h]) / '
    'increase(prectr_scored_impressions_total{job="monitor"}[1h])',
)
SCORED_CLICKS: Final = MetricDefinition(
    "prectr_scored_clicks_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Clicked impressions on scored pages.",
    'rate(prectr_scored_clicks_total{job="monitor", segment="all"}[5m])',
)
PREDICTED_CLICKS: Final = MetricDefinition(
    "prectr_predicted_clicks_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Sum of the predicted click probabilities.",
    'increase(prectr_predicted_clicks_total{job="monitor"}[1h]) / '
    'increase(prectr_scored_clicks_total{job="monitor"}[1h])',
)
LOG_LOSS_NATS: Final = MetricDefinition(
    "prectr_log_loss_nats_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Sum of the log losses of all impressions, in nats.",
    'increase(prectr_log_loss_nats_total{job="monitor"}[1h]) / '
    'increase(prectr_scored_impressions_total{job="monitor"}[1h])',
)
GAUC_WEIGHTED: Final = MetricDefinition(
    "prectr_gauc_weighted_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Sum over pages of AUC times impressions.",
    'increase(prectr_gauc_weighted_total{job="monitor"}[1h]) / increase(prectr_gauc_weight_total{job="monitor"}[1h])',
)
GAUC_WEIGHT: Final = MetricDefinition(
    "prectr_gauc_weight_total",
    "counter",
    _SEGMENT,
    ("train", "monitor", "replay"),
    "Impressions on pages with clicked and unclicked impressions.",
    'increase(prectr_gauc_weight_total{job="monitor"}[1h])',
)

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
    "Records of model-quality that are corrupt or of another version.",
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

_INPUT: Final = ("topic", "partition")

INGEST_RECORDS: Final = MetricDefinition(
    "prectr_ingest_records_total",
    "counter",
    _INPUT,
    ("ingest",),
    "Records of the foreign topic that are processed.",
    "sum by (topic) (rate(prectr_ingest_records_total[5m]))",
)
INGEST_EVENTS: Final = MetricDefinition(
    "prectr_ingest_events_total",
    "counter",
    (*_INPUT, "type"),
    ("ingest",),
    "Events written to search-events, by type.",
    "sum by (topic, type) (rate(prectr_ingest_events_total[5m]))",
)
INGEST_DEAD_LETTERS: Final = MetricDefinition(
    "prectr_ingest_dead_letters_total",
    "counter",
    (*_INPUT, "reason"),
    ("ingest",),
    "Records that cannot be mapped, wholly or in part, by reason; each is a dead letter.",
    "sum by (reason) (rate(prectr_ingest_dead_letters_total[5m])) > 0",
)
INGEST_LEFT_OUT: Final = MetricDefinition(
    "prectr_ingest_left_out_total",
    "counter",
    (*_INPUT, "reason"),
    ("ingest",),
    "Records, pages without items and fields that the mapping leaves out, by reason; none is a dead letter.",
    "sum by (topic, reason) (rate(prectr_ingest_left_out_total[5m]))",
)
INGEST_LAG_RECORDS: Final = MetricDefinition(
    "prectr_ingest_lag_records",
    "gauge",
    _INPUT,
    ("ingest",),
    "Records of the partition that are not processed yet.",
    "sum by (topic) (prectr_ingest_lag_records)",
)
INGEST_WAITING: Final = MetricDefinition(
    "prectr_ingest_waiting",
    "gauge",
    _INPUT,
    ("ingest",),
    "Whether records that have been read wait for other inputs, which are behind in event time: 1 or 0.",
    "avg_over_time(prectr_ingest_waiting[5m]) == 1",
)
INGEST_TIMESTAMP_SECONDS: Final = MetricDefinition(
    "prectr_ingest_timestamp_seconds",
    "gauge",
    _INPUT,
    ("ingest",),
    "Event time up to which the partition has been read, in seconds since the epoch.",
    "time() - min by (topic) (prectr_ingest_timestamp_seconds)",
)

SECTIONS: Final = (
    (
        "Ingest",
        (
            INGEST_RECORDS,
            INGEST_EVENTS,
            INGEST_DEAD_LETTERS,
            INGEST_LEFT_OUT,
            INGEST_LAG_RECORDS,
            INGEST_WAITING,
            INGEST_TIMESTAMP_SECONDS,
        ),
        "`topic` is a foreign topic, `type` is page or click. Counters count what is committed, since this process "
        "opened the partition. Reasons: see [ingest](ingest.md).",
    ),
    (
        "Record outcomes",
        (
            EVENTS,
            PAGES,
            CLICKS,
            DEAD_LETTERS,
            PENDING_PAGES,
            PENDING_CLICKS,
            FUTURE_EVENTS,
            FUTURE_EVENT_LEAD_SECONDS,
            AGGREGATED_IMPRESSIONS,
            AGGREGATED_CLICKS,
        ),
        "`type` is page, click or unreadable. `outcome` of a page is emitted, empty, duplicate or "
        "dead_letter; of a click joined, duplicate, late, orphan, foreign, other_action or dead_letter: see "
        "[semantics](semantics.md). Pages that are still open and clicks that wait are gauges, and so are the "
        "[future events](semantics.md#watermark-of-a-task) among them.",
    ),
    (
        "Progress and lag",
        (
            TASK_OFFSET,
            CONSUMER_LAG_RECORDS,
            EMITTED_RECORDS,
            WATERMARK_TIMESTAMP_SECONDS,
            WATERMARK_LAG_SECONDS,
            LOW_WATERMARK_TIMESTAMP_SECONDS,
            LATE_RECORDS,
            MICROBATCH_RECORDS,
            MICROBATCH_SECONDS,
            TRANSACTION_SECONDS,
        ),
        "",
    ),
    (
        "State and snapshots",
        (
            RESTORE_REMAINING_RECORDS,
            RESTORE_SECONDS,
            RESTORED_RECORDS,
            STORE_KEYS,
            STORE_BYTES,
            STORE_MEMORY_BYTES,
            STORE_BLOCK_CACHE_HITS,
            STORE_BLOCK_CACHE_MISSES,
            STORE_WRITE_STALL_SECONDS,
            SNAPSHOT_AGE_SECONDS,
            SNAPSHOT_SECONDS,
            SNAPSHOT_BYTES,
            SNAPSHOT_UPLOADED_BYTES,
            SNAPSHOT_FAILURES,
            SNAPSHOTS_CORRUPT,
        ),
        "",
    ),
    (
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
    ),
    (
        "Model quality",
        (
            AUC,
            GAUC,
            LOG_LOSS,
            NORMALIZED_ENTROPY,
            CALIBRATION_RATIO,
            SCORED_PAGES,
            SCORED_IMPRESSIONS,
            SCORED_CLICKS,
            PREDICTED_CLICKS,
            LOG_LOSS_NATS,
            GAUC_WEIGHTED,
            GAUC_WEIGHT,
        ),
        "`segment` is all, new, low or active, by the number of joined clicks of the page's user. "
        "`window` is 5m, 1h or 24h of event time (monitor only), or run (the whole run). The "
        "counters are the sums behind the gauges, so PromQL can merge windows of any length; AUC "
        "cannot be computed from sums.",
    ),
    (
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
    ),
)
"""The sections of docs/metrics.md: title, metrics, and a note."""
