"""What of a report is a problem, what is worth a warning, and what to do about each."""

from collections.abc import Iterator
from typing import Final

from prectr.state.setting import format_duration
from prectr.stream.check.report import CheckReport, Finding
from prectr.stream.check.spans import format_span
from prectr.stream.config import PipelineConfig

PROBLEM: Final = "problem"
WARNING: Final = "warning"

# Each pair: the share above which something is a warning, and above which it is a problem. Problems are what the
# report of a replay would warn of.
_INVALID: Final = (0.001, 0.01)
_OTHER_UNIT: Final = (0.001, 0.01)
_AHEAD: Final = (0.001, 0.01)
_BEHIND: Final = (0.001, 0.01)
_LOST: Final = (0.01, 0.05)
"""Of clicks, for one reason: no page, not shown, window or order."""
_LARGEST_VISITOR: Final = (0.1, 0.5)
_FEW_VISITORS: Final = 2
_TIMES_EVEN: Final = 5.0
"""Among several visitors, one is conspicuous only with so many times an even share."""
_MAX_QUERY: Final = 0.5
_MIN_EVENTS: Final = 100
"""Below this many events nothing is said of how they spread over visitors, queries and partitions."""
_SKEW: Final = 2.0
"""Events of the fullest partition, of an even share."""
_SPARSE: Final = 4.0
"""Pages in a training batch below which a page costs several times as much."""
_MIN_TITLES: Final = 0.5
_OTHER_UNITS: Final = ("seconds", "microseconds", "nanoseconds", "days")
_SORT: Final = "sort it by ts: ORDER BY ts in the export, or jq -cs 'sort_by(.ts)[]' for a small file"
_LONGER_BATCHES: Final = "a replay with a model that reads text uses --batch-span 1d by itself; give it with others"
_CONVERT: Final = "prectr convert mapping.toml FILE --draft proposes a mapping for another layout"
_OTHER_LAYOUT: Final = ("not_json", "not_utf8", "unknown_type", "missing_field")


def findings_of(report: CheckReport, config: PipelineConfig) -> list[Finding]:
    """Return what is not as it should be, problems first."""
    found = [
        *_of_files(report),
        *_of_validity(report),
        *_of_times(report),
        *_of_order(report),
        *_of_clicks(report, config),
        *_of_spread(report),
        *_of_items(report),
        *_of_pace(report),
    ]
    return sorted(found, key=lambda finding: finding.severity != PROBLEM)


def _severity(value: float, limits: tuple[float, float]) -> str | None:
    """Return the severity of a share above limits for a warning and for a problem."""
    return PROBLEM if value > limits[1] else WARNING if value > limits[0] else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def _of_files(report: CheckReport) -> Iterator[Finding]:
    for file in report.files:
        if file.other_content is not None:
            yield Finding(PROBLEM, "files", file.other_content, _CONVERT)
    if report.read_error is not None:
        yield Finding(PROBLEM, "files", report.read_error, "what follows is not part of this check")


def _of_validity(report: CheckReport) -> Iterator[Finding]:
    validity = report.validity
    if report.lines == 0 and (report.read_error is not None or any(file.other_content for file in report.files)):
        return
    if report.lines == 0:
        yield Finding(PROBLEM, "events", "the log is empty", "name the files that hold the events")
        return
    severity = _severity(validity.invalid / report.lines, _INVALID)
    is_explained = validity.invalid == report.lines and any(file.other_content for file in report.files)
    if severity is not None and not is_explained:
        cause = validity.causes[0]
        message = (
            f"{validity.invalid:,} of {report.lines:,} lines ({_percent(validity.invalid / report.lines)}) are not "
            f"valid events and would be dead letters; most often {cause.reason}: {cause.detail}"
        )
        advice = _CONVERT if cause.reason in _OTHER_LAYOUT else "correct it where the log is written"
        yield Finding(severity, "events", message, advice)
    if validity.invalid == report.lines:
        return
    if validity.pages == validity.empty_pages:
        yield Finding(PROBLEM, "events", "there is no page with items", "add the result pages (type impression)")
    elif validity.clicks == 0:
        actions = ", ".join(f"{count:,} {action}" for action, count in validity.other_actions.items())
        advice = f"set click_actions; there are {actions}" if actions else "add the clicks"
        yield Finding(PROBLEM, "events", "there is no click, so there is nothing to learn", advice)


def _of_times(report: CheckReport) -> Iterator[Finding]:
    units = report.validity.units
    total = sum(units.values())
    foreign = sum(count for unit, count in units.items() if unit.startswith(_OTHER_UNITS))
    counted = ", ".join(f"{count:,} in {unit}" for unit, count in units.items())
    mixed = "units of time are mixed: " if len(units) > 1 else "ts is not in milliseconds: "
    severity = _severity(foreign / max(total, 1), _OTHER_UNIT)
    if severity is not None:
        yield Finding(severity, "time", mixed + counted, "write every ts in milliseconds since 1970")


def _of_order(report: CheckReport) -> Iterator[Finding]:
    order, count = report.order, report.clicks.configured
    lost = 0.0 if count.joined_if_sorted == 0 else 1 - count.joined / count.joined_if_sorted
    behind = 0.0 if order.events == 0 else order.behind / order.events
    severities = {_severity(lost, _LOST), _severity(behind, _BEHIND)}
    if severities != {None}:
        message = (
            f"{_percent(behind)} of the events step back in time, by up to "
            f"{format_span(order.largest_ms)}; {count.joined:,} clicks join as it is, "
            f"{count.joined_if_sorted:,} if it were sorted"
        )
        worst = max(report.files, key=lambda file: file.behind)
        advice = f"{_SORT}; most of it is in {worst.path}" if len(report.files) > 1 and worst.behind else _SORT
        yield Finding(PROBLEM if PROBLEM in severities else WARNING, "order", message, advice)
    severity = None if order.events == 0 else _severity(order.ahead / order.events, _AHEAD)
    if severity is not None:
        message = (
            f"{order.ahead:,} events ({_percent(order.ahead / order.events)}) are more than max_clock_skew ahead of "
            "the others: dead letters (future_timestamp), or near the end of the log kept with their wrong time"
        )
        yield Finding(severity, "time", message, "correct the clocks that wrote them")


def _of_clicks(report: CheckReport, config: PipelineConfig) -> Iterator[Finding]:
    clicks = report.clicks
    if clicks.distinct == 0 or clicks.pages == 0:
        return
    severity = _severity(clicks.without_page / clicks.distinct, _LOST)
    if severity is not None:
        advice = "add the pages, or check that clicks carry the request_id and user_id of their page"
        if clicks.of_another_user:
            advice = f"{clicks.of_another_user:,} have the request_id of another user's page: use one user_id for both"
        message = f"{_percent(clicks.without_page / clicks.distinct)} of the clicks have no page in the log"
        yield Finding(severity, "clicks", message, advice)
    severity = _severity(clicks.not_shown / clicks.distinct, _LOST)
    if severity is not None:
        message = f"{_percent(clicks.not_shown / clicks.distinct)} of the clicks are on an item that their page lacks"
        yield Finding(severity, "clicks", message, "check that item_id has one form in pages and clicks")
    most, proposed = clicks.windows[-1].joined_if_sorted, clicks.proposed_window_seconds
    if proposed is None:
        return
    severity = _severity(1 - clicks.configured.joined_if_sorted / max(most, 1), _LOST)
    if severity is not None:
        message = (
            f"an attribution window of {format_duration(config.attribution_window)} finds "
            f"{_percent(clicks.configured.joined_if_sorted / most)} of the clicks that one of "
            f"{format_duration(clicks.windows[-1].window_seconds)} finds"
        )
        longer = format_duration(proposed)
        advice = f"set attribution_window to {longer}, such as by PRECTR_ATTRIBUTION_WINDOW={longer}"
        yield Finding(severity, "window", message, advice)


def _of_spread(report: CheckReport) -> Iterator[Finding]:
    events = report.visitors.events
    if events < _MIN_EVENTS:
        return
    share, visitors = report.visitors.largest / events, report.visitors.keys
    severity = _severity(share, _LARGEST_VISITOR)
    if severity is not None and (visitors <= _FEW_VISITORS or share > _TIMES_EVEN / visitors):
        largest = report.visitors.largest_key
        whose = "all events are" if visitors == 1 else f"{_percent(share)} of the events are"
        advice = "leave user_id out for logged-out visitors, and give them a session_id"
        yield Finding(severity, "visitors", f"{whose} under the one id {largest!r}", advice)
    even = events / len(report.partitions)
    fullest = max(report.partitions)
    if fullest > _SKEW * even:
        message = f"the fullest of {len(report.partitions)} partitions has {fullest / even:.1f} times an even share"
        yield Finding(WARNING, "visitors", message, "more visitors even it out; a replay is right all the same")
    if report.queries.largest > _MAX_QUERY * report.queries.events:
        share = report.queries.largest / report.queries.events
        message = f"{_percent(share)} of the pages have the one query {report.queries.largest_key!r}"
        yield Finding(WARNING, "queries", message, "check that the query is what the visitor typed")


def _of_items(report: CheckReport) -> Iterator[Finding]:
    items, titles = report.items, report.fields.present["title"]
    if items.pages == 0:
        return
    if titles < _MIN_TITLES:
        message = f"{_percent(1 - titles)} of the items have no title, which relevance is inferred from"
        yield Finding(WARNING, "items", message, "join the catalogue: see prectr convert")
    for name, pages in (("item", items.repeated_items), ("position", items.repeated_positions)):
        if pages > _LOST[0] * items.pages:
            message = f"{_percent(pages / items.pages)} of the pages have one {name} twice"
            yield Finding(WARNING, "items", message, "a click labels the first of equal items")


def _of_pace(report: CheckReport) -> Iterator[Finding]:
    clicks, pace = report.clicks, report.pace
    if clicks.conflicting_pages > _LOST[0] * max(clicks.pages, 1):
        share = clicks.conflicting_pages / clicks.pages
        message = f"{_percent(share)} of the pages come again with other content and would be dead letters"
        yield Finding(_severity(share, _LOST) or WARNING, "pages", message, "give each page a request_id of its own")
    if pace.pages_per_batch is not None and clicks.pages >= _MIN_EVENTS and pace.pages_per_batch < _SPARSE:
        message = f"with this batch_span, a batch holds {pace.pages_per_batch:.1f} pages, so that training is slow"
        yield Finding(WARNING, "pace", message, _LONGER_BATCHES)
