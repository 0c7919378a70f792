"""The sections on the models: over time, calibration, segments, levels, positions, comparison."""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType

from prectr.model.quality.learning_trend import auc_error
from prectr.model.quality.quality import TimelinePoint
from prectr.model.quality.sketch import ImpressionStats, QualityStats
from prectr.ops.report.charts import WIDE, Axis, Plane, Point, Series, bar, legend, line_chart, scatter_on_diagonal
from prectr.ops.report.markup import Markup, join, stat, tag
from prectr.ops.report.numbers import count, decimals_for, fixed, moment, percent, ratio, ticks, time_ticks
from prectr.ops.report.schema import ModelReport, Report

SEGMENT_NOTE = "By the user's joined clicks before the page: new 0–2, low 3–9, active 10 or more."
_SEGMENTS: Sequence[tuple[str, str, str]] = (
    ("all", "all pages", "s-whole"),
    ("new", "new users", "s-1"),
    ("low", "low activity", "s-2"),
    ("active", "active users", "s-0"),
)
_MIN_CLICKS = 20
"""Points of fewer clicks are noise and are not drawn."""

Measure = Callable[[QualityStats], float | None]


def _auc(stats: QualityStats) -> float | None:
    return stats.auc


def _gauc(stats: QualityStats) -> float | None:
    return stats.gauc


def _points(timeline: Sequence[TimelinePoint], segment: str, name: str, measure: Measure, metric: str) -> list[Point]:
    points = []
    for interval in timeline:
        stats: QualityStats = getattr(interval, segment)
        value = measure(stats) if stats.clicks >= _MIN_CLICKS else None
        tip = (
            f"{name}: {metric} {fixed(value)}\n{moment(interval.start)} to {moment(interval.end)} UTC\n"
            f"{count(stats.pages)} pages, {count(stats.clicks)} clicks"
        )
        points.append(Point((interval.start + interval.end) / 2, value, tip, 1.96 * auc_error(stats)))
    return points


def _time_axis(timeline: Sequence[TimelinePoint], max_ticks: int = 8) -> Axis:
    low, high = timeline[0].start, timeline[-1].end
    return Axis(low, high, time_ticks(low, high, max_ticks), "event time, UTC")


def _value_axis(series: Sequence[Series]) -> Axis:
    values = [
        point.y + side * (point.spread if one.band else 0.0)
        for one in series
        for point in one.points
        if point.y is not None
        for side in (-1, 1)
    ]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = max(0.06 * (high - low), 0.005)
    low, high = max(low - pad, 0.0), min(high + pad, 1.0)
    tick_values = ticks(low, high)
    return Axis(low, high, [(value, fixed(value, max(decimals_for(tick_values), 2))) for value in tick_values], "")


def _chart(label: str, series: Sequence[Series], plane: Plane) -> Markup:
    """The chart, or a note if there is nothing to draw."""
    if not any(point.y is not None for one in series for point in one.points):
        return tag("p", f"Nothing to draw yet: no interval has {_MIN_CLICKS} clicks.", class_="empty")
    return tag("div", line_chart(label, series, plane), class_="scroll")


def over_time(model: ModelReport) -> Markup:
    """AUC and GAUC of a model over event time, in total and by segment."""
    if not model.timeline:
        return Markup("")
    figures = []
    series: list[Series] = []
    for metric, measure in (("AUC", _auc), ("Page GAUC", _gauc)):
        series = [
            Series(
                name,
                css_class,
                _points(model.timeline, segment, name, measure, metric),
                segment == "all" and metric == "AUC",
            )
            for segment, name, css_class in _SEGMENTS
        ]
        plane = Plane(_time_axis(model.timeline), _value_axis(series))
        figures.append(tag("figure", tag("h3", metric), _chart(f"{metric} over event time", series, plane)))
    note = (
        "Prequential: every page is scored before the model trains on it. Points are intervals of about equally many "
        f"pages; the band is the 95 % interval of the AUC of all pages. {SEGMENT_NOTE}"
    )
    return tag(
        "section",
        tag("h2", "Quality over time"),
        tag("p", note, class_="note"),
        legend(series),
        tag("div", *figures, class_="pair"),
    )


def calibration(model: ModelReport) -> Markup:
    """Predicted and observed click rate, in groups of equally many impressions."""
    curve = model.calibration_curve
    if not curve:
        return Markup("")
    points = []
    for group in curve:
        error = math.sqrt(max(group.observed * (1 - group.observed), 1e-12) / group.impressions)
        tip = (
            f"predicted {percent(group.predicted, 2)}, observed {percent(group.observed, 2)}\n"
            f"{count(group.impressions)} impressions"
        )
        points.append(Point(group.predicted, group.observed, tip, 1.96 * error))
    high = min(1.06 * max(max(point.x, (point.y or 0.0) + point.spread) for point in points), 1.0)
    tick_values = ticks(0.0, high)
    decimals = max(decimals_for(tick_values) - 2, 0)
    axis = Axis(0.0, high, [(value, percent(value, decimals)) for value in tick_values], "")
    note = (
        "Impressions grouped by prediction into groups of about equal size, with 95 % intervals. On the dashed line, "
        f"predictions equal observations; overall, predicted / observed clicks is {fixed(model.calibration, 3)}."
    )
    chart = scatter_on_diagonal("calibration curve", points, axis, "predicted click rate", "observed click rate")
    return tag("section", tag("h2", "Calibration"), tag("p", note, class_="note"), tag("figure", chart))


def _header(*names: str) -> Markup:
    # Columns without a name hold bars and are hidden on narrow screens.
    css_classes = ["name" if i == 0 else "" if name else "wide" for i, name in enumerate(names)]
    cells = [tag("th", name, scope="col", class_=css_class) for name, css_class in zip(names, css_classes, strict=True)]
    return tag("thead", tag("tr", *cells))


def _cells(*values: "str | Markup") -> Markup:
    return join(*(tag("td", value) for value in values))


def segments(model: ModelReport, at: str) -> Markup:
    """Quality of all pages, of their second half, and by segment; at: path of the model in the JSON."""
    half = model.second_half
    rows: list[tuple[str, str, QualityStats]] = [
        ("all pages", at, model),
        ("second half", f"{at}/second_half", half),
        ("new users", f"{at}/segments/new", model.segments.new),
        ("low activity", f"{at}/segments/low", model.segments.low),
        ("active users", f"{at}/segments/active", model.segments.active),
    ]
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            _cells(
                stat(f"{path}/pages", count(row.pages)),
                percent(ratio(row.clicks, row.impressions)),
                stat(f"{path}/auc", fixed(row.auc)),
                stat(f"{path}/gauc", fixed(row.gauc)),
                stat(f"{path}/log_loss", fixed(row.log_loss)),
                stat(f"{path}/normalized_entropy", fixed(row.normalized_entropy)),
                stat(f"{path}/calibration", fixed(row.calibration, 3)),
            ),
        )
        for name, path, row in rows
    ]
    since = "" if half.start is None else f" The second half starts at {moment(half.start)} UTC."
    table = tag(
        "table",
        _header("", "pages", "click rate", "AUC", "page GAUC", "log loss", "norm. entropy", "calibration"),
        tag("tbody", *body),
    )
    note = (
        f"{SEGMENT_NOTE}{since} Page GAUC is the mean AUC within a page, weighted by impressions; ties count half, "
        "pages without both clicked and unclicked impressions are excluded. Log loss is in nats per impression, "
        "normalised entropy its ratio to always predicting the mean, calibration predicted / observed clicks."
    )
    return tag("section", tag("h2", "By segment"), tag("p", note, class_="note"), tag("div", table, class_="scroll"))


def _split_table(
    first: str, path: str, rows: Mapping[str, ImpressionStats], names: Mapping[str, str] = MappingProxyType({})
) -> Markup:
    shown = {name: row for name, row in rows.items() if row.impressions}
    highest = max((row.clicks / row.impressions for row in shown.values()), default=0.0)
    body = []
    for name, row in shown.items():
        rate = row.clicks / row.impressions
        body.append(
            tag(
                "tr",
                tag("th", names.get(name, name), scope="row"),
                tag("td", stat(f"{path}/{name}/impressions", count(row.impressions))),
                tag("td", percent(rate)),
                tag("td", bar(rate / highest if highest else 0.0), class_="wide"),
                _cells(
                    stat(f"{path}/{name}/auc", fixed(row.auc)),
                    stat(f"{path}/{name}/calibration", fixed(row.calibration, 3)),
                ),
            )
        )
    head = _header(first, "impressions", "click rate", "", "AUC", "calibration")
    return tag("table", head, tag("tbody", *body), class_="split")


def splits(model: ModelReport, at: str) -> Markup:
    """Quality by relevance level and by position; at: path of the model in the JSON."""
    names = {"1": "1 irrelevant", "2": "2 weakly", "3": "3 relevant", "4": "4 strongly"}
    note = "AUC among the impressions of the same level, or of the same position."
    return tag(
        "section",
        tag("h2", "By relevance level and position"),
        tag("p", note, class_="note"),
        tag(
            "div",
            tag("div", _split_table("level", f"{at}/levels", model.levels, names), class_="scroll"),
            tag("div", _split_table("position", f"{at}/positions", model.positions), class_="scroll"),
            class_="pair",
        ),
    )


_COLUMNS: Sequence[tuple[str, str, int, Callable[[float], float]]] = (
    ("AUC", "auc", 4, lambda value: -value),
    ("page GAUC", "gauc", 4, lambda value: -value),
    ("AUC, second half", "second_half/auc", 4, lambda value: -value),
    ("AUC, new users", "segments/new/auc", 4, lambda value: -value),
    ("log loss", "log_loss", 4, lambda value: value),
    ("norm. entropy", "normalized_entropy", 4, lambda value: value),
    ("calibration", "calibration", 3, lambda value: abs(math.log(value)) if value > 0 else math.inf),
)
"""Title, path in the report of a model, decimals, and a function whose minimum is the best value."""


def _at(model: ModelReport, path: str) -> float | None:
    value: float | None = attrgetter(path.replace("/", "."))(model)
    return value


def models(report: Report) -> Markup:
    """Comparison of the models; empty if there is only one."""
    if len(report.models) < 2:
        return Markup("")
    note = "All were trained on the same pages in the same order; the best value of each column is marked."
    return tag(
        "section",
        tag("h2", "Models side by side"),
        tag("p", note, class_="note"),
        tag("div", _models_table(report.models), class_="scroll"),
        _models_over_time(report),
    )


def _models_table(compared: Sequence[ModelReport]) -> Markup:
    # A model without weights is the oracle: an upper bound, not a competitor.
    trained = [model for model in compared if model.weights_sha256 is not None]
    best = [
        min((value for model in trained if (value := _at(model, path)) is not None), key=badness, default=None)
        for _, path, _, badness in _COLUMNS
    ]
    body = []
    for number, model in enumerate(compared):
        cells = []
        for (_, path, decimals, _), best_value in zip(_COLUMNS, best, strict=True):
            value = _at(model, path)
            is_best = value is not None and value == best_value and model in trained
            shown = stat(f"models/{number}/{path}", fixed(value, decimals))
            cells.append(tag("td", shown, **({"class_": "best"} if is_best else {})))
        body.append(tag("tr", tag("th", model.model, scope="row"), *cells))
    return tag("table", _header("model", *(name for name, *_ in _COLUMNS)), tag("tbody", *body))


def _models_over_time(report: Report) -> Markup:
    series = []
    for i, model in enumerate(report.models):
        css_class = f"s-{i % 7}" if model.weights_sha256 else "s-7"
        series.append(Series(model.model, css_class, _points(model.timeline, "all", model.model, _auc, "AUC")))
    if not report.timeline:
        return Markup("")
    plane = Plane(_time_axis(report.timeline, 14), _value_axis(series), WIDE)
    chart = _chart("AUC of each model over event time", series, plane)
    return tag("figure", tag("h3", "AUC over time"), legend(series), chart)
