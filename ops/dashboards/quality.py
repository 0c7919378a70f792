"""Model quality: by window, by segment of users, and compared with yesterday."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _monitor_gauge(metric: str, segment: str = '"all"', window: str = '"5m|1h|24h|run"') -> str:
    """The monitor's gauge: one series per model, window and segment, even if the monitor has moved."""
    return (
        f'max by (model, segment, window) ({metric}{{job="monitor",segment=~{segment},window=~{window},'
        'model=~"$model"})'
    )


def _by_window(id: int, title: str, metric: str, description: str, decimals: int) -> Panel:
    return Panel(
        id=id,
        title=title,
        description=description,
        unit="none",
        queries=(Query(_monitor_gauge(metric), "{{model}} {{window}}"),),
        decimals=decimals,
    )


def _by_segment(id: int, title: str, metric: str, description: str, decimals: int) -> Panel:
    return Panel(
        id=id,
        title=title,
        description=description + " Users by number of joined clicks: new below 3, low 3 to 9, active 10 or more.",
        unit="none",
        queries=(Query(_monitor_gauge(metric, '".+"', '"24h"'), "{{model}} {{segment}}"),),
        decimals=decimals,
    )


def _against_yesterday(id: int, title: str, metric: str, description: str, decimals: int) -> Panel:
    day = _monitor_gauge(metric, window='"24h"').removesuffix(")")
    return Panel(
        id=id,
        title=title,
        description=description + " No data until Prometheus has a day of history.",
        unit="none",
        queries=(
            Query(f"{day})", "{{model}} today"),
            Query(f"{day} offset 1d)", "{{model}} yesterday"),
        ),
        decimals=decimals,
    )


def _rate(metric: str, by: str) -> str:
    """Of the counters of the monitor: those of a trainer fall back to its checkpoint after a crash."""
    return f'sum by ({by}) (rate({metric}{{job="monitor",segment!="all",model=~"$model"}}[1h]))'


QUALITY: Final = Dashboard(
    name="quality",
    title="PRECTR: quality",
    description="Prequential quality: each page is scored before the model trains on it; the monitor merges the "
    "scores of all trainers. Windows are event time.",
    time_from="now-24h",
    rows=(
        Row(
            "By window",
            (
                _by_window(
                    1,
                    "AUC",
                    "prectr_auc",
                    "Probability that a clicked item scores higher than an unclicked one, over all pages. Short "
                    "windows are noisy: with n clicks, the standard error is about 0.44 / √n.",
                    4,
                ),
                _by_window(
                    2,
                    "GAUC",
                    "prectr_gauc",
                    "AUC within each page, weighted by impressions; ties count half, pages without both classes are "
                    "excluded. Differences between pages play no part: this measures the order on the page.",
                    4,
                ),
                _by_window(
                    3,
                    "Calibration",
                    "prectr_calibration_ratio",
                    "Predicted clicks divided by observed clicks; 1 is perfect. With n clicks, the standard error is "
                    "1 / √n.",
                    3,
                ),
                _by_window(
                    4,
                    "Log loss",
                    "prectr_log_loss",
                    "Nats per impression. Depends on the click rate as well as on the model: compare normalised "
                    "entropy.",
                    4,
                ),
                _by_window(
                    5,
                    "Normalised entropy",
                    "prectr_normalized_entropy",
                    "Log loss divided by that of always predicting the observed click rate; below 1 the model has "
                    "learned something, at 1 nothing.",
                    4,
                ),
                Panel(
                    id=6,
                    title="Click rate, observed and predicted",
                    description="Clicks per impression in the last hour (wall clock), observed and as predicted by "
                    "the scores.",
                    unit="percentunit",
                    queries=(
                        Query(
                            f"{_rate('prectr_scored_clicks_total', 'model')} / "
                            f"{_rate('prectr_scored_impressions_total', 'model')}",
                            "{{model}} observed",
                        ),
                        Query(
                            f"{_rate('prectr_predicted_clicks_total', 'model')} / "
                            f"{_rate('prectr_scored_impressions_total', 'model')}",
                            "{{model}} predicted",
                        ),
                    ),
                    axis_min=0,
                ),
            ),
        ),
        Row(
            "By segment, last 24 h",
            (
                _by_segment(7, "AUC by segment", "prectr_auc", "Which users the model works for.", 4),
                _by_segment(
                    8,
                    "GAUC by segment",
                    "prectr_gauc",
                    "New users have no history: their quality comes from the clicks of the query.",
                    4,
                ),
                _by_segment(
                    9, "Calibration by segment", "prectr_calibration_ratio", "1 is perfect, in each segment.", 3
                ),
                Panel(
                    id=10,
                    title="Scored pages, by segment",
                    description="Pages per second behind the metrics above, over the last hour (wall clock).",
                    unit="recps",
                    queries=(Query(_rate("prectr_scored_pages_total", "model, segment"), "{{model}} {{segment}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=11,
                    title="Click rate by relevance level",
                    description="Clicks per impression over all queries, by relevance level of the item (1 "
                    "irrelevant, 4 strongly relevant), in the last hour (wall clock). Should rise with "
                    "the level.",
                    unit="percentunit",
                    queries=(
                        Query("relevance_level:prectr_aggregated_clicks:ratio_rate1h", "level {{relevance_level}}"),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=12,
                    title="GAUC of the last 6 h, from the sums",
                    description="Wall-clock time instead of event time, merged by Prometheus from the counters of "
                    "the monitor. Any other window can be computed in this way.",
                    unit="none",
                    queries=(Query('model:prectr_gauc:ratio_increase6h{model=~"$model"}', "{{model}}"),),
                    decimals=4,
                ),
            ),
        ),
        Row(
            "Against yesterday",
            (
                _against_yesterday(
                    13,
                    "AUC, today and yesterday",
                    "prectr_auc",
                    "Last 24 h, and the same a day ago. Days differ in their queries: only a lasting drop is "
                    "meaningful.",
                    4,
                ),
                _against_yesterday(14, "GAUC, today and yesterday", "prectr_gauc", "As for AUC.", 4),
                _against_yesterday(
                    15, "Calibration, today and yesterday", "prectr_calibration_ratio", "1 is perfect.", 3
                ),
                Panel(
                    id=16,
                    title="AUC and GAUC: last hour minus last day",
                    description="The basis of the alerts; 0 is no change. They fire below -0.01 minus three standard "
                    "errors of the clicks of the hour.",
                    unit="none",
                    queries=(
                        Query('-model:prectr_auc:drop1h{model=~"$model"}', "{{model}} AUC"),
                        Query('-model:prectr_gauc:drop1h{model=~"$model"}', "{{model}} GAUC"),
                        Query('-(0.01 + 3 * model:prectr_auc:noise1h{model=~"$model"})', "{{model}} AUC alert below"),
                    ),
                    decimals=4,
                ),
                Panel(
                    id=17,
                    title="Live trainers",
                    description="Trainers that have published quality in the last 45 s. 0: the metrics above are out "
                    "of date.",
                    unit="none",
                    queries=(
                        Query('max by (model) (prectr_live_trainers{job="monitor",model=~"$model"})', "{{model}}"),
                    ),
                    axis_min=0,
                    decimals=0,
                ),
                Panel(
                    id=18,
                    title="Age of the last quality record",
                    description="Time since any trainer of the model has published; each publishes every 10 s.",
                    unit="s",
                    queries=(
                        Query(
                            'min by (model) (prectr_quality_last_record_age_seconds{job="monitor",model=~"$model"})',
                            "{{model}}",
                        ),
                    ),
                    axis_min=0,
                ),
            ),
        ),
    ),
)
