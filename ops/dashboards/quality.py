"""How good the model is: by window, by segment of users, against yesterday."""

from typing import Final

from prectr.ops.dashboards.board import Dashboard, Panel, Query, Row


def _monitor_gauge(metric: str, segment: str = '"all"', window: str = '"5m|1h|24h|run"') -> str:
    """The monitor's figure. One series a model, window and segment, however often the monitor was moved."""
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
        description=description + " Users by joined clicks so far: new below 3, low 3 to 9, active 10 and more.",
        unit="none",
        queries=(Query(_monitor_gauge(metric, '".+"', '"24h"'), "{{model}} {{segment}}"),),
        decimals=decimals,
    )


def _against_yesterday(id: int, title: str, metric: str, description: str, decimals: int) -> Panel:
    day = _monitor_gauge(metric, window='"24h"').removesuffix(")")
    return Panel(
        id=id,
        title=title,
        description=description + " Nothing until Prometheus has kept it for a day.",
        unit="none",
        queries=(
            Query(f"{day})", "{{model}} today"),
            Query(f"{day} offset 1d)", "{{model}} yesterday"),
        ),
        decimals=decimals,
    )


def _rate(metric: str, by: str) -> str:
    """Of the monitor's sums: a trainer's fall back with it to its checkpoint."""
    return f'sum by ({by}) (rate({metric}{{job="monitor",segment!="all",model=~"$model"}}[1h]))'


QUALITY: Final = Dashboard(
    name="quality",
    title="PRECTR: quality",
    description="Each page is scored before it is learned from; these are the figures of those scores, added up by the "
    "monitor over all trainers. Windows are of event time.",
    time_from="now-24h",
    rows=(
        Row(
            "By window",
            (
                _by_window(
                    1,
                    "AUC",
                    "prectr_auc",
                    "Probability that a clicked item has a higher score than one that was not, over all pages. Short "
                    "windows are noisy: with n clicks, about 0.44 / √n is one standard error.",
                    4,
                ),
                _by_window(
                    2,
                    "GAUC",
                    "prectr_gauc",
                    "AUC within each page, weighted by impressions; ties half, pages without both classes left out. "
                    "Position has no part in what differs between pages, so this is the figure for order on the page.",
                    4,
                ),
                _by_window(
                    3,
                    "Calibration",
                    "prectr_calibration_ratio",
                    "Predicted over observed clicks; 1 is right. With n clicks, 1 / √n is one standard error.",
                    3,
                ),
                _by_window(
                    4,
                    "Log loss",
                    "prectr_log_loss",
                    "Nats an impression. It follows the click rate as well as the model: compare normalised entropy.",
                    4,
                ),
                _by_window(
                    5,
                    "Normalised entropy",
                    "prectr_normalized_entropy",
                    "Log loss over that of always predicting the observed click rate; below 1 the model knows "
                    "something, at 1 nothing.",
                    4,
                ),
                Panel(
                    id=6,
                    title="Click rate, observed and predicted",
                    description="Clicks an impression in the last hour of the clock, and what the scores had promised.",
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
                _by_segment(7, "AUC by segment", "prectr_auc", "Who it works for.", 4),
                _by_segment(
                    8,
                    "GAUC by segment",
                    "prectr_gauc",
                    "New users have no history: what holds there comes from the query's own clicks.",
                    4,
                ),
                _by_segment(
                    9, "Calibration by segment", "prectr_calibration_ratio", "1 is right, for each of them.", 3
                ),
                Panel(
                    id=10,
                    title="Pages scored, by segment",
                    description="How many pages a second the figures are made of, over the last hour of the clock.",
                    unit="recps",
                    queries=(Query(_rate("prectr_scored_pages_total", "model, segment"), "{{model}} {{segment}}"),),
                    kind="stack",
                    axis_min=0,
                ),
                Panel(
                    id=11,
                    title="Click rate by relevance level",
                    description="Clicks an impression over all queries, by the level of the item (1 irrelevant, 4 strongly "
                    "relevant), in the last hour of the clock. It should rise with the level.",
                    unit="percentunit",
                    queries=(
                        Query("relevance_level:prectr_aggregated_clicks:ratio_rate1h", "level {{relevance_level}}"),
                    ),
                    axis_min=0,
                ),
                Panel(
                    id=12,
                    title="GAUC of the last 6 h, from the sums",
                    description="Of the clock instead of event time, merged by Prometheus from the monitor's counters: what "
                    "any other span can be had by.",
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
                    "Last 24 h, and what it was a day ago. Days differ by their queries: trust a fall that stays.",
                    4,
                ),
                _against_yesterday(14, "GAUC, today and yesterday", "prectr_gauc", "As AUC.", 4),
                _against_yesterday(
                    15, "Calibration, today and yesterday", "prectr_calibration_ratio", "1 is right.", 3
                ),
                Panel(
                    id=16,
                    title="AUC and GAUC: last hour less last day",
                    description="What the alerts look at; 0 is as before. They fire where it is below 0 by 0.01 and by what "
                    "clicks so few can explain (three standard errors).",
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
                    title="Processes that publish quality",
                    description="Trainers that the monitor has heard of within 45 s. 0: the figures above stand still.",
                    unit="none",
                    queries=(
                        Query('max by (model) (prectr_live_trainers{job="monitor",model=~"$model"})', "{{model}}"),
                    ),
                    axis_min=0,
                    decimals=0,
                ),
                Panel(
                    id=18,
                    title="Silence",
                    description="Time since any trainer of the model has published; each does so every 10 s.",
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
