"""Metrics of the section "Record outcomes"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

_TASK: Final = ("stage", "partition")

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
    "Pages and waiting clicks that are more than max_clock_skew (an hour) ahead of their partition: dead letters in an "
    "hour, unless the stream comes to their time. 0 in a healthy system.",
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
MISPLACED_EVENTS: Final = MetricDefinition(
    "prectr_misplaced_events_total",
    "counter",
    _TASK,
    ("stream",),
    "Events in another partition than that of their user, of one in 64 that are looked at: their producer has another "
    "key or partitioner, and clicks and pages do not meet.",
    'sum by (partition) (rate(prectr_misplaced_events_total{job="stream"}[5m])) > 0',
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

SECTION: Final = MetricSection(
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
        MISPLACED_EVENTS,
        AGGREGATED_IMPRESSIONS,
        AGGREGATED_CLICKS,
    ),
    "`type` is page, click or unreadable. `outcome` of a page is emitted, empty, duplicate or "
    "dead_letter; of a click joined, duplicate, late, orphan, foreign, other_action or dead_letter: see "
    "[semantics](semantics.md). Pages that are still open and clicks that wait are gauges, and so are the "
    "[future events](semantics.md#watermark-of-a-task) among them.",
)
