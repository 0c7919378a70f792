"""Renders `report.html`: one self-contained page."""

from prectr.ops.report.comparison.by_model import SELECTION_STYLE, by_model
from prectr.ops.report.feature_section import custom_features
from prectr.ops.report.level_sections import inferred_levels
from prectr.ops.report.log.sections import dead_letters, order, warnings
from prectr.ops.report.markup import Markup, join, stat, tag
from prectr.ops.report.numbers import DASH, count, duration, fixed, moment, percent, ratio
from prectr.ops.report.pipeline_sections import configuration, hashes, outcomes, preferences
from prectr.ops.report.quality_sections import models
from prectr.ops.report.schema import Report
from prectr.ops.report.style import STYLE


def render(report: Report) -> str:
    """The page; every text of the report is escaped."""
    name = report.model or "stages only"
    body = tag(
        "main",
        _heading(report, name),
        warnings(report),
        _tiles(report),
        models(report),
        by_model(report),
        dead_letters(report),
        outcomes(report),
        order(report),
        preferences(report),
        custom_features(report),
        inferred_levels(report),
        configuration(report),
        hashes(report),
        tag(
            "footer",
            "All numbers are also in report.json beside this page. A page is a result page, an impression an item "
            "shown on it. Hover over a dot or cell for its numbers.",
        ),
    )
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
        # An empty icon, so that browsers do not request one.
        Markup('<link rel="icon" href="data:,">'),
        tag("title", f"Replay report: {name}"),
        tag("style", Markup(STYLE + SELECTION_STYLE)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _heading(report: Report, name: str) -> Markup:
    span = ""
    if report.first_close is not None and report.last_close is not None:
        span = f"Pages closed from {moment(report.first_close)} to {moment(report.last_close)} UTC, event time"
    if report.outcomes.imbalances():
        verdict = tag("span", "✗ records unaccounted for", class_="verdict bad")
    elif report.warnings:
        number = "1 warning" if len(report.warnings) == 1 else f"{len(report.warnings)} warnings"
        verdict = tag("span", f"✗ {number} on the log", class_="verdict bad")
    else:
        verdict = tag("span", "✓ every record accounted for, clicks found their pages", class_="verdict good")
    title = tag("div", tag("h1", f"Replay report: {name}"), tag("p", span, class_="lead"))
    return tag("header", title, verdict)


def _tile(name: str, value: Markup, sub: "str | Markup", unit: str = "") -> Markup:
    shown = join(value, tag("small", unit)) if unit else value
    return tag("div", tag("dt", name), tag("dd", shown, class_="value"), tag("dd", sub, class_="sub"), class_="tile")


def _tiles(report: Report) -> Markup:
    half = report.second_half
    quality = []
    if report.models:
        auc, gauc = (None, None) if half is None else (half.auc, half.gauc)
        quality = [
            _tile("AUC", stat("auc", fixed(report.auc)), join("2nd half ", stat("second_half/auc", fixed(auc)))),
            _tile(
                "Page GAUC",
                stat("gauc", fixed(report.gauc)),
                join("2nd half ", stat("second_half/gauc", fixed(gauc))),
            ),
            _tile(
                "Log loss",
                stat("log_loss", fixed(report.log_loss)),
                join("normalised ", stat("normalized_entropy", fixed(report.normalized_entropy))),
            ),
            _tile("Calibration", stat("calibration", fixed(report.calibration, 3)), "1 is perfect"),
        ]
    speed = DASH if report.pages_per_second is None else count(report.pages_per_second)
    impressions, rate = (
        stat("impressions", count(report.impressions)),
        percent(ratio(report.clicks, report.impressions)),
    )
    return tag(
        "dl",
        *quality,
        _tile("Pages", stat("pages", count(report.pages)), join(impressions, " impressions")),
        _tile("Clicks", stat("clicks", count(report.clicks)), f"click rate {rate}"),
        _tile("Speed", join(speed), f"in {duration(report.seconds)}", "pages/s"),
        class_="tiles",
    )
