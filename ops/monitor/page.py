"""The monitor's page: current quality by model and segment, and its sources. One file, no script."""

from collections.abc import Sequence
from typing import Final

from prectr.model.quality.record import REASONS
from prectr.model.quality.sketch import QualityStats
from prectr.ops.monitor.current_quality import (
    STATUS_READING,
    CurrentModel,
    CurrentPoint,
    CurrentQuality,
    CurrentSource,
    SegmentStats,
)
from prectr.ops.report.markup import Markup, join, tag
from prectr.ops.report.numbers import DASH, count, duration, fixed, moment
from prectr.ops.report.style import STYLE

_REFRESH_SECONDS: Final = 10
_SEGMENTS: Final = (
    ("all", "all pages", "s-whole"),
    ("new", "new users", "s-1"),
    ("low", "low activity", "s-2"),
    ("active", "active users", "s-0"),
)
_NAMES: Final = {"auc": "AUC", "gauc": "GAUC"}
_COLUMNS: Final = ("log loss", "normalised entropy", "calibration", "pages", "impressions", "clicks")
_WINDOWS: Final = (("5m", "5 min"), ("1h", "1 h"), ("24h", "24 h"), ("run", "whole run"))
_WIDTH: Final = 220
_HEIGHT: Final = 36
_MARGIN: Final = 3
_MIN_CLICKS: Final = 20
"""Points of fewer clicks are noise and are not drawn."""
_PAGE_STYLE: Final = """
svg.spark{width:220px;height:36px;display:inline-block;vertical-align:middle}
.spark .dot{stroke:none}
td.trend{padding-top:3px;padding-bottom:3px}
h2 .until{font-weight:400;color:var(--soft);font-size:13.5px;margin-left:10px}
.scroll+.scroll{margin-top:22px}
@media (max-width:560px){svg.spark{width:130px}h2 .until{display:block;margin:0 0 8px}}
"""


def render(now: CurrentQuality) -> str:
    """The page; every text is escaped, every number is that of the JSON."""
    body = tag(
        "main",
        _heading(now),
        *[_model(model) for model in now.models],
        tag("section", _sources(now)) if now.sources else join(),
        _rejected(now),
        tag(
            "footer",
            "Windows are event time and end with the newest page. Segments by joined clicks of the user: new below 3, "
            "low below 10, active from 10. GAUC: AUC within a page, weighted by impressions, ties count half, pages "
            "without both classes excluded. Log loss in nats per impression. Calibration: predicted divided by "
            "observed clicks. The same as JSON: ",
            tag("a", "quality.json", href="quality.json"),
        ),
    )
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
        # An empty icon, so that browsers do not request one.
        Markup(f'<link rel="icon" href="data:,"><meta http-equiv="refresh" content="{_REFRESH_SECONDS}">'),
        tag("title", "Model quality"),
        tag("style", Markup(STYLE + _PAGE_STYLE)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _heading(now: CurrentQuality) -> Markup:
    alive = sum(source.alive for source in now.sources)
    lead = "No trainer has published yet: a trainer publishes after its first checkpoint."
    if now.last_checkpoint_time is not None:
        age = duration(max(0.0, (now.now - now.last_checkpoint_time) / 1000))
        lead = f"{alive} of {len(now.sources)} trainers alive, last checkpoint {age} ago"
    verdict, css_class = f"✗ {now.status}", "bad"
    if now.status == STATUS_READING and not now.sources:
        verdict, css_class = "… nothing published yet", ""
    elif now.status == STATUS_READING:
        verdict, css_class = ("✓ reading", "good") if alive else ("✗ no trainer is alive", "bad")
    return tag(
        "header",
        tag("div", tag("h1", "Model quality"), tag("p", lead, class_="lead")),
        tag("span", verdict, class_=f"verdict {css_class}"),
    )


def _model(model: CurrentModel) -> Markup:
    return tag(
        "section",
        tag("h2", model.model, tag("span", f"up to {moment(model.event_time_end)} UTC, event time", class_="until")),
        *[tag("div", _table(model, metric, _NAMES[metric]), class_="scroll") for metric in ("gauc", "auc")],
        tag("div", _last_hour(model), class_="scroll"),
    )


def _table(model: CurrentModel, metric: str, name: str) -> Markup:
    """A metric by segment and window, with a sparkline of the last day."""
    head = tag(
        "tr",
        tag("th", name, class_="name"),
        *[tag("th", title) for _, title in _WINDOWS],
        tag("th", "last 24 h, per half hour", class_="name"),
    )
    rows = []
    for segment, title, css_class in _SEGMENTS:
        cells = [
            tag(
                "td",
                fixed(getattr(_stats_of(model.windows[window], segment), metric)),
                data_stat=f"{model.model}/{segment}/{window}/{metric}",
            )
            for window, _ in _WINDOWS
        ]
        line = tag(
            "td", _sparkline(model.timeline, segment, metric, css_class, f"{name} of {title}"), class_="name trend"
        )
        rows.append(tag("tr", tag("th", title, scope="row"), *cells, line))
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _last_hour(model: CurrentModel) -> Markup:
    """The other metrics of the last hour."""
    head = tag(
        "tr",
        *[
            tag("th", title, class_="name" if not column else "")
            for column, title in enumerate(("Last hour", *_COLUMNS))
        ],
    )
    rows = []
    for segment, title, _ in _SEGMENTS:
        stats = _stats_of(model.windows["1h"], segment)
        values = {
            "log_loss": fixed(stats.log_loss),
            "normalized_entropy": fixed(stats.normalized_entropy),
            "calibration": fixed(stats.calibration, 3),
            "pages": count(stats.pages),
            "impressions": count(stats.impressions),
            "clicks": count(stats.clicks),
        }
        cells = [tag("td", value, data_stat=f"{model.model}/{segment}/1h/{metric}") for metric, value in values.items()]
        rows.append(tag("tr", tag("th", title, scope="row"), *cells))
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _stats_of(segments: SegmentStats, segment: str) -> QualityStats:
    stats: QualityStats = getattr(segments, segment)
    return stats


def _sparkline(timeline: Sequence[CurrentPoint], segment: str, metric: str, css_class: str, title: str) -> Markup:
    """A sparkline of a metric over event time."""
    points = []
    for point in timeline:
        stats = _stats_of(point.segments, segment)
        value: float | None = getattr(stats, metric)
        if value is not None and stats.clicks >= _MIN_CLICKS:
            points.append((point.end, value))
    if not points:
        return join(DASH)
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    coordinates = [
        (
            _MARGIN + (end - first) / ((last - first) or 1) * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (value - low) / ((high - low) or 1.0) * (_HEIGHT - 2 * _MARGIN),
        )
        for end, value in points
    ]
    x, y = coordinates[-1]
    return tag(
        "svg",
        tag("title", f"{title}: {low:.4f} to {high:.4f}, {points[-1][1]:.4f} now"),
        tag(
            "polyline",
            class_=f"line {css_class}",
            points=" ".join(f"{left:.1f},{top:.1f}" for left, top in coordinates),
        ),
        tag("circle", class_=f"dot {css_class}", cx=x, cy=y, r=2.6),
        class_="spark",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
    )


def _sources(now: CurrentQuality) -> Markup:
    head = tag(
        "tr",
        tag("th", "Trainer", class_="name"),
        tag("th", "rank"),
        tag("th", "state", class_="name"),
        tag("th", "last record"),
        tag("th", "last checkpoint"),
        tag("th", "event time"),
    )
    table = tag("table", tag("thead", head), tag("tbody", *[_source(source) for source in now.sources]))
    return join(tag("h2", "Trainers"), tag("div", table, class_="scroll"))


def _source(source: CurrentSource) -> Markup:
    return tag(
        "tr",
        tag("th", source.run, scope="row"),
        tag("td", str(source.rank)),
        tag("td", "alive" if source.alive else "gone", class_=f"name {'good' if source.alive else 'bad'}"),
        tag("td", f"{duration(source.last_record_age_seconds)} ago"),
        tag("td", f"{duration(source.checkpoint_age_seconds)} ago"),
        tag("td", f"{moment(source.event_time_end)} UTC"),
    )


def _rejected(now: CurrentQuality) -> Markup:
    if not now.rejected:
        return join()
    reasons = ", ".join(f"{count(number)} {reason}" for reason, number in sorted(now.rejected.items()))
    meanings = ". ".join(f"{reason}: {REASONS[reason]}" for reason in sorted(now.rejected) if reason in REASONS)
    return tag(
        "section",
        tag("h2", "Rejected records"),
        tag(
            "p",
            f"{reasons}. {meanings}. The monitor's log names the topic, partition and offset of the first of each "
            "reason; other records are not affected.",
            class_="note",
        ),
    )
