"""The sections on the data: record outcomes, relevance preferences of queries, settings, hashes."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from prectr.ops.report.charts import bar
from prectr.ops.report.markup import Markup, join, stat, tag
from prectr.ops.report.numbers import DASH, count, percent, ratio
from prectr.ops.report.schema import QueryPreference, Report
from prectr.stream.join.outcomes import ClickOutcomes, PageOutcomes

_PAGE_OUTCOMES: Sequence[tuple[str, str, str]] = (
    ("emitted", "emitted as an example", "s-0"),
    ("open", "still open", "s-7"),
    ("empty", "empty: a search without hits", "s-7"),
    ("duplicate", "duplicate", "s-1"),
    ("dead_letter", "dead letter", "s-4"),
)
_CLICK_OUTCOMES: Sequence[tuple[str, str, str]] = (
    ("joined", "joined to its page", "s-0"),
    ("waiting", "waiting for its page", "s-7"),
    ("duplicate", "duplicate", "s-1"),
    ("late", "late", "s-1"),
    ("orphan", "orphan: no such page", "s-1"),
    ("foreign", "foreign: item not on the page", "s-1"),
    ("other_action", "another action than a click", "s-7"),
    ("dead_letter", "dead letter", "s-4"),
)
_MAX_SHOWN = 12
"""Number of queries shown; the rest is collapsed."""
_MIN_IMPRESSIONS = 10
"""Click rates of fewer impressions are shown faintly."""


def _outcome_table(
    title: str, kind: str, outcomes: PageOutcomes | ClickOutcomes, rows: Sequence[tuple[str, str, str]]
) -> Markup:
    received = outcomes.received
    body = []
    total = 0
    for field, name, css_class in rows:
        value: int = getattr(outcomes, field)
        total += value
        share = ratio(value, received)
        body.append(
            tag(
                "tr",
                tag("th", name, scope="row"),
                tag("td", stat(f"outcomes/{kind}/{field}", count(value))),
                tag("td", percent(share, 2)),
                tag("td", bar(share or 0.0, css_class), class_="wide"),
            )
        )
    verdict = (
        tag("span", f"✓ {count(received)} received", class_="good")
        if total == received
        else tag("span", f"✗ but {count(received)} received", class_="bad")
    )
    total_row = tag(
        "tr", tag("th", "sum", scope="row"), tag("td", count(total)), tag("td", verdict, colspan=2), class_="sum"
    )
    return tag("div", tag("table", tag("caption", title), tag("tbody", *body, total_row)), class_="scroll")


def outcomes(report: Report) -> Markup:
    """Outcomes of pages and clicks, and whether every record is accounted for."""
    counts = report.outcomes
    imbalances = counts.imbalances()
    sums = (
        f"{count(counts.records)} records = {count(counts.pages.received)} pages + "
        f"{count(counts.clicks.received)} clicks + {count(counts.unreadable)} unreadable"
    )
    parts = [tag("p", sums + f". Late records: {count(report.late_records)}.", class_="check")]
    parts += [tag("p", line, class_="check bad") for line in imbalances]
    return tag(
        "section",
        tag("h2", "Outcomes of pages and clicks"),
        tag("p", "Every record has exactly one outcome; the sums are checked here.", class_="note"),
        tag(
            "div",
            _outcome_table("Pages", "pages", counts.pages, _PAGE_OUTCOMES),
            _outcome_table("Clicks", "clicks", counts.clicks, _CLICK_OUTCOMES),
            class_="pair",
        ),
        *parts,
    )


def _heat_cell(impressions: int, clicks: int, highest: float) -> Markup:
    if not impressions:
        return tag("td", DASH, class_="cell", style="--a:0")
    rate = clicks / impressions
    depth = 0.06 + 0.88 * (rate / highest if highest else 0.0)
    thin = " thin" if impressions < _MIN_IMPRESSIONS else ""
    # White text on a light page needs a deeper colour than dark text on a dark page.
    strong = " strong deep" if depth > 0.85 else " deep" if depth > 0.65 else ""
    return tag(
        "td",
        percent(rate),
        tag("span", f"{count(clicks)} of {count(impressions)}", class_="n"),
        class_="cell" + strong + thin,
        style=f"--a:{depth:.2f}",
    )


def preferences(report: Report) -> Markup:
    """Click rate by relevance level of the top queries, as a heat table."""
    queries = report.top_queries
    if not queries:
        return Markup("")
    rates = [
        clicks / impressions
        for query in queries
        for impressions, clicks in zip(query.impressions, query.clicks, strict=True)
        if impressions >= _MIN_IMPRESSIONS
    ]
    highest = max(rates, default=0.0)
    head = tag(
        "tr",
        tag("th", "query", scope="col", class_="name"),
        *(
            tag("th", name, scope="col", style="text-align:center")
            for name in ("1 irrelevant", "2 weakly", "3 relevant", "4 strongly")
        ),
        tag("th", "impressions", scope="col"),
    )
    rows = [_preference_row(query, highest) for query in queries]
    note = (
        "Click rate by relevance level: if it hardly rises from left to right, users of this query also accept less "
        f"relevant items. Rates of fewer than {_MIN_IMPRESSIONS} impressions are shown faintly."
    )
    return tag(
        "section",
        tag("h2", "Relevance preferences of the top queries"),
        tag("p", note, class_="note"),
        _heat_table(head, rows[:_MAX_SHOWN]),
        _details(f"{len(rows) - _MAX_SHOWN} more", _heat_table(head, rows[_MAX_SHOWN:]))
        if len(rows) > _MAX_SHOWN
        else Markup(""),
    )


def _heat_table(head: Markup, rows: Sequence[Markup]) -> Markup:
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="heat"), class_="scroll")


def _details(summary: str, content: Markup) -> Markup:
    return tag("details", tag("summary", summary), content)


def _preference_row(query: QueryPreference, highest: float) -> Markup:
    return tag(
        "tr",
        tag("th", tag("bdi", query.query or "(empty)"), scope="row", title=query.query),
        *(
            _heat_cell(impressions, clicks, highest)
            for impressions, clicks in zip(query.impressions, query.clicks, strict=True)
        ),
        tag("td", count(sum(query.impressions))),
    )


def configuration(report: Report) -> Markup:
    """Every setting of the run."""
    entries = [tag("div", tag("dt", name), tag("dd", value)) for name, value in _settings(report.config)]
    return tag("section", tag("h2", "Configuration"), tag("dl", *entries, class_="pairs"))


def _settings(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings by dotted name, in order."""
    settings = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            settings += _settings(value, f"{prefix}{name}.")
        else:
            settings.append((prefix + name, value if isinstance(value, str) else msgspec.json.encode(value).decode()))
    return settings


def hashes(report: Report) -> Markup:
    """The digests by which two runs are compared."""
    entries = [("examples", report.examples_sha256), ("aggregates", report.aggregates_sha256)]
    entries += [(f"weights of {model.model}", model.weights_sha256) for model in report.models if model.weights_sha256]
    return tag(
        "section",
        tag("h2", "Digests"),
        tag("p", "SHA-256. Equal inputs and settings give equal digests, even after a crash.", class_="note"),
        tag("dl", *(join(tag("dt", name), tag("dd", tag("code", value))) for name, value in entries), class_="hashes"),
    )
