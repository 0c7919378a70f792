"""Prints a check on one screen: what is in the log, then what is wrong with it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.state.setting import format_duration
from prectr.stream.check.report import CheckReport, Finding
from prectr.stream.check.spans import format_span
from prectr.stream.config import PipelineConfig

_FILE_WIDTH: Final = 120
"""Columns where the output is not a terminal."""
_CAUSES: Final = 4
_NAMES: Final = 8
_STYLES: Final = {"problem": "bold red", "warning": "yellow"}

_PLACES: Final = {"page.features": "page", "item.features": "item", "page.context": "context"}

Row = tuple[str, str]


def print_check(report: CheckReport, config: PipelineConfig) -> None:
    """Print a report; control characters of the log are escaped. config: the settings of the check."""
    console = stdout_console(_FILE_WIDTH, highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in (*_rows(report, config), *_finding_rows(report.findings)):
        table.add_row(Text(name, style=_STYLES.get(name, "")), Text(printable(text)))
    console.print(table)
    problems = sum(finding.severity == "problem" for finding in report.findings)
    if problems:
        console.print(
            Text(f"The log is not ready to replay: {problems} problem{'s' * (problems > 1)}.", style="bold red")
        )
    else:
        console.print(Text("The log is ready to replay.", style="bold green"))


def _rows(report: CheckReport, config: PipelineConfig) -> Iterator[Row]:
    yield from _event_rows(report)
    if report.order.first_ts is None:
        return
    yield from _time_rows(report)
    yield from _click_rows(report, config)
    yield from _content_rows(report, config)
    yield from _estimate_rows(report)


def _event_rows(report: CheckReport) -> Iterator[Row]:
    validity = report.validity
    size = sum(file.bytes for file in report.files)
    plural = "" if len(report.files) == 1 else "s"
    yield "log", f"{len(report.files):,} file{plural}, {size / 1e6:,.1f} MB, {report.lines:,} lines"
    others = "".join(f", {count:,} {action}" for action, count in list(validity.other_actions.items())[:_CAUSES])
    empty = f" ({validity.empty_pages:,} without items)" if validity.empty_pages else ""
    invalid = f"; {_part(validity.invalid, report.lines)} not valid" if validity.invalid else "; all lines valid"
    if not report.lines:
        invalid = ""
    yield "events", f"{validity.pages:,} pages{empty}, {validity.clicks:,} clicks{others}{invalid}"
    for cause in validity.causes[:_CAUSES]:
        yield "", f"{cause.lines:,} {cause.reason}: {cause.detail}"
    if validity.causes:
        first = validity.causes[0]
        yield "", f"such as {first.place}: {first.example[:150]}"
    if len(validity.causes) > _CAUSES:
        yield "", f"and {len(validity.causes) - _CAUSES:,} further causes (--json has them)"


def _time_rows(report: CheckReport) -> Iterator[Row]:
    order, pace = report.order, report.pace
    assert order.first_ts is not None
    assert order.last_ts is not None
    span = format_span(order.last_ts - order.first_ts)
    units = ", ".join(
        f"{unit} ({count:,})" if len(report.validity.units) > 1 else unit
        for unit, count in report.validity.units.items()
    )
    yield "time", f"{_moment(order.first_ts)} to {_moment(order.last_ts)} ({span}); ts in {units}"
    behind = "no event steps back in time by more than allowed_lateness"
    if order.behind:
        behind = (
            f"{_part(order.behind, order.events)} of the events step back in time: median "
            f"{format_span(order.median_ms)}, 99 % within {format_span(order.p99_ms)}, largest "
            f"{format_span(order.largest_ms)}"
        )
    files = f"; {order.overlapping_files:,} files overlap in time and are merged" if order.overlapping_files else ""
    yield "order", behind + files
    batches = "" if pace.pages_per_batch is None else f"; a training batch holds {pace.pages_per_batch:.1f}"
    yield "pace", f"{pace.pages_per_minute:,.3g} pages a minute{batches}"


def _click_rows(report: CheckReport, config: PipelineConfig) -> Iterator[Row]:
    clicks = report.clicks
    sample = "" if report.sampled == 1 else f"estimated from {report.sampled:.3%} of the request ids: "
    yield (
        "pages",
        f"{sample}{clicks.pages:,}: {clicks.repeated_pages:,} sent again, "
        f"{clicks.conflicting_pages:,} sent again with other content",
    )
    if not clicks.distinct:
        return
    other = f" ({clicks.of_another_user:,} of another user's)" if clicks.of_another_user else ""
    yield (
        "clicks",
        f"{sample}{clicks.distinct:,} and {clicks.clicks - clicks.distinct:,} repeated; "
        f"{_part(clicks.without_page, clicks.distinct)} without a page{other}, "
        f"{_part(clicks.not_shown, clicks.distinct)} on an item not shown, {clicks.before_page:,} before their page",
    )
    if clicks.median_delay_ms is not None and clicks.p95_delay_ms is not None:
        delays = f"median {format_span(clicks.median_delay_ms)}, 95 % within {format_span(clicks.p95_delay_ms)}"
        yield "", f"from page to click: {delays}"
    yield "window", "  ".join(f"{format_duration(each.window_seconds):>5}" for each in clicks.windows)
    is_same = all(each.joined == each.joined_if_sorted for each in clicks.windows)
    rows = {"joined": "joined"} if is_same else {"as it is": "joined", "if sorted": "joined_if_sorted"}
    for name, field in rows.items():
        shares = (getattr(each, field) / clicks.distinct for each in clicks.windows)
        yield f"  {name}", "  ".join(f"{100 * share:4.0f}%" for share in shares)
    if clicks.proposed_window_seconds is not None:
        configured = format_duration(config.attribution_window)
        proposed = format_duration(clicks.proposed_window_seconds)
        joined = _part(clicks.configured.joined, clicks.distinct)
        yield "", f"configured: {configured}, {joined} joined; {proposed} finds 99 % of what the longest finds"


def _content_rows(report: CheckReport, config: PipelineConfig) -> Iterator[Row]:
    visitors, items = report.visitors, report.items
    about = "" if visitors.exact else "about "
    largest = _share(visitors.largest, visitors.events)
    even = visitors.events / len(report.partitions)
    yield (
        "visitors",
        f"{about}{visitors.keys:,}, the largest with {largest} of the events; fullest of "
        f"{config.partitions} partitions: {max(report.partitions) / max(even, 1e-9):.2f} times an even share",
    )
    if report.fields.by_session:
        yield "", f"{report.fields.by_session:.0%} of the events have a session_id in place of a user_id"
    queries = report.queries
    about = "" if queries.exact else "about "
    yield (
        "queries",
        f"{about}{queries.keys:,}, the most frequent on {_share(queries.largest, queries.events)} of the pages",
    )
    if items.pages == 0:
        return
    yield "items", f"{items.smallest} to {items.largest} a page, median {items.median}; {_present(report)}"
    yield (
        "positions",
        f"1, 2, 3 … on {_share(items.consecutive, items.pages)} of the pages; {items.start_later:,} begin later, "
        f"{items.gaps:,} have gaps, {items.repeated_positions:,} a position twice",
    )
    yield "levels", _levels(report, config)
    features = [f"{_PLACES[each.place]}.{each.name} ({each.kind}, {each.share:.0%})" for each in report.fields.features]
    yield "features", _listed(features) or "none"
    if report.fields.ignored:
        yield "ignored", _listed([f"{name} ({share:.0%})" for name, share in report.fields.ignored.items()])


def _estimate_rows(report: CheckReport) -> Iterator[Row]:
    estimate = report.estimate
    if estimate is None:
        return
    models = ", ".join(f"{name} {format_span(1000 * seconds)}" for name, seconds in estimate.models.items())
    yield (
        "replay",
        f"about {format_span(1000 * estimate.stages)} for the stages, in addition: {models}; measured on the first "
        f"{estimate.sample_pages:,} pages, here and now",
    )


def _finding_rows(findings: list[Finding]) -> Iterator[Row]:
    for finding in findings:
        yield finding.severity, f"{finding.subject}: {finding.message}. Do: {finding.advice}"


def _levels(report: CheckReport, config: PipelineConfig) -> str:
    items = report.items
    logged = items.impressions - items.without_level
    if logged == 0:
        return f"none logged; labeller {config.labeller} fills them in"
    shares = ", ".join(f"{level}: {_share(count, logged)}" for level, count in items.levels.items())
    fills = f"; labeller {config.labeller} fills in the others" if items.without_level else ""
    return f"logged for {_share(logged, items.impressions)} of the items ({shares}){fills}"


def _present(report: CheckReport) -> str:
    names = ("title", "price", "category", "brand")
    return ", ".join(f"{name} {report.fields.present[name]:.0%}" for name in names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _part(count: int, total: int) -> str:
    return f"{count:,} ({_share(count, total)})" if count else "0"


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.3g} %" if total else "0 %"


def _moment(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
