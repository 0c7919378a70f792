"""Metrics of the section "Model quality"."""

from typing import Final

from prectr.ops.metrics.definition import MetricDefinition, MetricSection

_SEGMENT: Final = ("model", "segment")
_WINDOW: Final = ("model", "segment", "window")

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

SECTION: Final = MetricSection(
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
)
