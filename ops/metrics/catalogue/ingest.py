"""Metrics of the section "Ingest"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

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

SECTION: Final = MetricSection(
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
)
