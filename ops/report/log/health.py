"""Whether a log was read as a person would expect, and what is wrong with it otherwise."""

from collections.abc import Sequence
from typing import Final

import msgspec

from prectr.ops.cli.terminal_escape import printable
from prectr.ops.report.numbers import percent, ratio
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.replay.rejections import RejectionKind

MAX_REJECTED_SHARE: Final = 0.01
"""Producers that follow the contract send far fewer invalid records; 1 % moves a click rate by as much as a model that
is miscalibrated by 1 %."""
MAX_LOST_CLICK_SHARE: Final = 0.05
"""Of the clicks on pages in a log in order, those after the attribution window are a few percent."""
MAX_BEHIND_SHARE: Final = 0.01
"""A log in order has hardly any event behind the allowed lateness; of each, the page or the click may be late."""
_EXAMPLE_CHARACTERS: Final = 120


class FileOrder(msgspec.Struct, frozen=True):
    """Events of a file, and those that step back in its time by more than the allowed lateness."""

    file: str
    events: int
    behind: int


class LogOrder(msgspec.Struct, frozen=True):
    """How the log runs in time.

    Attributes:
        events: valid events.
        behind: of these, events that step back by more than `allowed_lateness` behind those read before.
        share: behind / events; null without events.
        files: the 20 files in which most events step back.
        ahead: events more than `max_clock_skew` ahead of those read before, contradicted by as many later ones.
    """

    events: int
    behind: int
    share: float | None
    files: list[FileOrder]
    ahead: int = 0


def log_warnings(
    outcomes: Outcomes, rejections: Sequence[RejectionKind], order: LogOrder | None, late_records: int
) -> list[str]:
    """Return what makes the result mean less than it seems to, a sentence or two each; empty if all is well.

    Args:
        outcomes: of all records.
        rejections: kinds of dead letters, the most frequent first.
        order: of the log; None if it is not known.
        late_records: records behind the merged watermark.
    """
    warnings = list(outcomes.imbalances())
    rejected = outcomes.pages.dead_letter + outcomes.clicks.dead_letter + outcomes.unreadable
    if not outcomes.records:
        warnings.append("The log holds no event.")
    elif rejected > MAX_REJECTED_SHARE * outcomes.records:
        most = f" Most frequent: {kind_sentence(rejections[0])}." if rejections else ""
        warnings.append(
            f"{percent(rejected / outcomes.records)} of the records are no valid events ({rejected:,} of "
            f"{outcomes.records:,}).{most}"
        )
    order_warnings = _order_warnings(order)
    warnings += order_warnings + _clock_warnings(order)
    warnings += _click_warnings(outcomes, in_order=not order_warnings)
    if late_records:
        warnings.append(
            f"{late_records:,} pages arrived behind the merged watermark: the result depends on the timing of this run."
        )
    return warnings


def nothing_valid(outcomes: Outcomes) -> str | None:
    """Return what of the log was never valid, so that nothing can come of it: no record, or no page; else None.

    A log that has clicks and no pages at all is no error here: its pages may follow.
    """
    pages, clicks = outcomes.pages, outcomes.clicks
    rejected = pages.dead_letter + clicks.dead_letter + outcomes.unreadable
    if rejected and rejected == outcomes.records:
        return "no record of the log is a valid event"
    may_be_pages = pages.dead_letter + outcomes.unreadable
    if pages.dead_letter == pages.received and may_be_pages > MAX_REJECTED_SHARE * outcomes.records:
        return "no page of the log is a valid event"
    return None


def kind_sentence(kind: RejectionKind) -> str:
    """A kind of dead letter with its first example, safe for a terminal."""
    detail, file, example = (printable(text) for text in (kind.detail, kind.file, kind.example))
    cut = "…" if len(example) > _EXAMPLE_CHARACTERS else ""
    return (
        f"{kind.reason} ({kind.count:,}): {detail}; first {file}:{kind.line}: "
        f"{example[:_EXAMPLE_CHARACTERS] or '(empty line)'}{cut}"
    )


def _clock_warnings(order: LogOrder | None) -> list[str]:
    if order is None or order.ahead <= MAX_REJECTED_SHARE * order.events:
        return []
    return [
        f"Clock skew: {percent(order.ahead / order.events)} of the events are more than max_clock_skew ahead of "
        f"the others ({order.ahead:,} of {order.events:,}). They are dead letters (future_timestamp), or near the end "
        "of the log keep their wrong time. Correct the clocks that wrote them."
    ]


def _order_warnings(order: LogOrder | None) -> list[str]:
    if order is None or not order.share or order.share <= MAX_BEHIND_SHARE:
        return []
    text = (
        f"Time runs backwards: {percent(order.share)} of the events step back by more than allowed_lateness "
        f"({order.behind:,} of {order.events:,}). "
    )
    within_files = sum(file.behind for file in order.files)
    if within_files <= order.behind / 2:
        return [text + "Each file is in order for itself: read them merged by time (--order time)."]
    worst = order.files[0]
    return [
        f"{text}Most in {printable(worst.file)} ({percent(worst.behind / worst.events)}). Sort the log by ts: ORDER BY "
        "ts in the export, or jq -cs 'sort_by(.ts)[]' for a small file of JSON lines."
    ]


def _click_warnings(outcomes: Outcomes, *, in_order: bool) -> list[str]:
    clicks = outcomes.clicks
    lost = clicks.late + clicks.orphan + clicks.foreign
    share = ratio(lost, lost + clicks.joined + clicks.duplicate)
    if share is None or share <= MAX_LOST_CLICK_SHARE:
        return []
    text = (
        f"{percent(share)} of the clicks found no page: {clicks.late:,} late, {clicks.orphan:,} without a page, "
        f"{clicks.foreign:,} on an item that the page does not show."
    )
    if not in_order:
        return [f"{text} Put the log in order first."]
    hints = {
        clicks.late: "Most came after their page had closed: attribution_window may be too short.",
        clicks.orphan: "Of most, no page has their user_id and request_id: pages are missing, or the ids differ.",
        clicks.foreign: "Most name an item_id that their page does not have.",
    }
    return [f"{text} {hints[max(hints)]}"]
