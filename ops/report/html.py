"""`report.html`: one self-contained page, for a person to look at."""

from ops.report.markup import Markup, join, tag
from ops.report.numbers import DASH, count, duration, fixed, moment, percent, ratio
from ops.report.pipeline_sections import configuration, dead_letters, hashes, outcomes, preferences
from ops.report.quality_sections import calibration, models, over_time, segments, splits
from ops.report.schema import Report
from ops.report.style import STYLE


def render(report: Report) -> str:
    """The whole page; every text of the report is escaped."""
    name = report.model or "stages only"
    body = tag(
        "main",
        _heading(report, name),
        _tiles(report),
        models(report),
        over_time(report),
        segments(report),
        _side_by_side(calibration(report), dead_letters(report)),
        outcomes(report),
        preferences(report),
        splits(report),
        configuration(report),
        hashes(report),
        tag("footer", "Figures are those of report.json beside this page. Point at a dot or cell for its numbers."),
    )
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
        tag("title", f"Replay report: {name}"),
        tag("style", Markup(STYLE)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _heading(report: Report, name: str) -> Markup:
    span = ""
    if report.first_close is not None and report.last_close is not None:
        span = f"Pages closed from {moment(report.first_close)} to {moment(report.last_close)} UTC, event time"
    whole = not report.outcomes.imbalance()
    verdict = (
        tag("span", "✓ every record accounted for", class_="verdict good")
        if whole
        else tag("span", "✗ records unaccounted for", class_="verdict bad")
    )
    title = tag("div", tag("h1", f"Replay report: {name}"), tag("p", span, class_="lead"))
    return tag("header", title, verdict)


def _tile(name: str, value: str, sub: str, unit: str = "") -> Markup:
    shown = join(value, tag("small", unit)) if unit else join(value)
    return tag("div", tag("dt", name), tag("dd", shown, class_="value"), tag("dd", sub, class_="sub"), class_="tile")


def _tiles(report: Report) -> Markup:
    half = report.second_half
    quality = []
    if report.models:
        quality = [
            _tile("AUC", fixed(report.auc), f"2nd half {fixed(half.auc if half else None)}"),
            _tile("Page GAUC", fixed(report.gauc), f"2nd half {fixed(half.gauc if half else None)}"),
            _tile("Log loss", fixed(report.log_loss), f"normalised {fixed(report.normalized_entropy)}"),
            _tile("Calibration", fixed(report.calibration, 3), "1 is perfect"),
        ]
    speed = DASH if report.pages_per_second is None else count(report.pages_per_second)
    return tag(
        "dl",
        *quality,
        _tile("Pages", count(report.pages), f"{count(report.impressions)} items"),
        _tile("Clicks", count(report.clicks), f"click rate {percent(ratio(report.clicks, report.impressions))}"),
        _tile("Speed", speed, f"in {duration(report.seconds)}", "pages/s"),
        class_="tiles",
    )


def _side_by_side(*sections: Markup) -> Markup:
    return tag("div", *sections, class_="sections")
