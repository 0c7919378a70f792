"""Writes dashboards as Grafana JSON, with Grafana's own builders. Needed for development only."""

import json
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from prectr.ops.dashboards.board import MODEL_VARIABLE, Dashboard, Panel, Query, Threshold

_TAG: Final = "prectr"
_SOURCE: Final = grafana.DataSourceRef(type_val="prometheus", uid="${datasource}")
_ANY_MODEL: Final = ".*"


def dashboard_json(board: Dashboard) -> str:
    """The dashboard as JSON for Grafana's provisioning."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([_TAG])
        .editable()
        .refresh("30s")
        .time(board.time_from, "now")
        .timezone("browser")
        .tooltip(grafana.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            dashboard.DashboardLink("PRECTR")
            .type(grafana.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .tooltip("Another dashboard, same time")
            .include_vars(True)
            .keep_time(True)
        )
    )
    if board.has_model_variable:
        builder.with_variable(_model_variable())
    for number, row in enumerate(board.rows):
        # Nothing links to the id of a row; it only has to differ from those of the panels.
        builder.with_row(dashboard.Row(row.title).id(1000 + number))
        for panel in row.panels:
            builder.with_panel(_panel(panel))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _model_variable() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(MODEL_VARIABLE)
        .label("Model")
        .datasource(_SOURCE)
        .query("label_values(prectr_trained_pages_total, model)")
        .refresh(grafana.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(grafana.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(_ANY_MODEL)
        .current(grafana.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _panel(panel: Panel) -> Builder[grafana.Panel]:
    builder: stat.Panel | table.Panel | timeseries.Panel
    if panel.kind == "stat":
        builder = _stat_panel(panel)
    elif panel.kind == "table":
        builder = table.Panel()
    else:
        builder = _timeseries_panel(panel)
    builder.id(panel.id).title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
    builder.span(panel.width).height(panel.height)
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    if panel.axis_min is not None:
        builder.min(panel.axis_min)
    if panel.axis_max is not None:
        builder.max(panel.axis_max)
    for number, query in enumerate(panel.queries):
        builder.with_target(_target(query, chr(ord("A") + number), panel))
    return builder


def _stat_panel(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.AREA)
        .thresholds(_thresholds(panel.thresholds or ((None, "green"),)))
    )


def _timeseries_panel(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .line_width(1)
        .show_points(options.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.TABLE)
            .placement(options.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    if panel.kind == "stack":
        builder.fill_opacity(60).stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if panel.thresholds:
        builder.thresholds(_thresholds(panel.thresholds)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)
        )
    return builder


def _target(query: Query, ref: str, panel: Panel) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref).datasource(_SOURCE)
    if query.legend:
        target.legend_format(query.legend)
    if panel.kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range()


def _thresholds(thresholds: tuple[Threshold, ...]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(grafana.ThresholdsMode.ABSOLUTE)
        .steps([grafana.Threshold(value=value, color=color) for value, color in thresholds])
    )
