"""What is told of a log: warnings where clicks found no page, time runs backwards, or much was rejected."""

from pathlib import Path

import pytest

from prectr.ops.report import build_report
from prectr.ops.report.html import render
from prectr.ops.report.log.health import FileOrder, LogOrder, log_warnings, nothing_valid
from prectr.ops.report.schema import Report
from prectr.ops.report.terminal import print_report
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.replay.rejections import RejectionKind
from tests.ops.report.test_report import facts

IN_ORDER = LogOrder(2000, 5, 0.0025, [FileOrder("log.jsonl", 2000, 5)])
KIND = RejectionKind("not_json", "JSON is malformed", 30, "logs/a\x1b[2J.jsonl", 7, "<b>\x1b[31m" + "x" * 200)


def outcomes(*, late: int = 0, orphan: int = 0, foreign: int = 0, joined: int = 960, unreadable: int = 0) -> Outcomes:
    clicks = ClickOutcomes(
        received=joined + late + orphan + foreign, joined=joined, late=late, orphan=orphan, foreign=foreign
    )
    return Outcomes(PageOutcomes(received=1000, emitted=1000), clicks, unreadable)


def told(found: Outcomes, order: LogOrder | None = IN_ORDER, rejections: list[RejectionKind] | None = None) -> str:
    return " ".join(log_warnings(found, rejections or [], order, 0))


def test_a_healthy_log_has_no_warning() -> None:
    assert told(outcomes(late=20, orphan=10, foreign=10, unreadable=10)) == ""
    assert told(outcomes(), None) == ""


def test_clicks_that_found_no_page_are_told_with_the_most_frequent_cause() -> None:
    """48 of 1,008 are 4.8 %, 51 of 1,011 are 5.04 %."""
    assert told(outcomes(late=48)) == ""
    assert told(outcomes(late=40, orphan=6, foreign=5)).startswith(
        "5.0 % of the clicks found no page: 40 late, 6 without a page, 5 on an item that the page does not show. "
        "Most came after their page had closed"
    )
    assert "no page has their user_id and request_id" in told(outcomes(orphan=51))
    assert "item_id that their page does not have" in told(outcomes(foreign=51))


def test_time_that_runs_backwards_is_told_with_the_file_and_how_to_sort() -> None:
    shuffled = LogOrder(2000, 900, 0.45, [FileOrder("b.jsonl", 1000, 890), FileOrder("a.jsonl", 1000, 10)])
    text = told(outcomes(late=100), shuffled)
    assert "45.0 % of the events step back" in text
    assert "Most in b.jsonl (89.0 %)" in text
    assert "ORDER BY ts" in text
    assert "Put the log in order first" in text
    one_after_the_other = LogOrder(2000, 900, 0.45, [FileOrder("b.jsonl", 1000, 0), FileOrder("a.jsonl", 1000, 0)])
    assert "--order time" in told(outcomes(), one_after_the_other)
    assert told(outcomes(), LogOrder(0, 0, None, [])) == ""


def test_clocks_that_are_ahead_are_told() -> None:
    files = IN_ORDER.files
    text = told(outcomes(), LogOrder(2000, 0, 0.0, files, ahead=21))
    assert "more than max_clock_skew ahead of the others (21 of 2,000)" in text
    assert told(outcomes(), LogOrder(2000, 0, 0.0, files, ahead=20)) == ""


def test_many_rejected_records_are_told_with_an_example_and_its_place() -> None:
    text = told(outcomes(unreadable=30), rejections=[KIND])
    assert "1.5 % of the records are no valid events (30 of 1,990)" in text
    assert r"not_json (30): JSON is malformed; first logs/a\x1b[2J.jsonl:7: <b>\x1b[31mx" in text
    assert "\x1b" not in text
    assert "x" * 120 not in text


def test_an_empty_log_and_one_without_a_valid_event_are_told_apart() -> None:
    assert told(Outcomes()) == "The log holds no event."
    nothing = Outcomes(PageOutcomes(received=2, dead_letter=2), ClickOutcomes(received=1, dead_letter=1), 3)
    assert told(nothing).startswith("100.0 % of the records are no valid events (6 of 6)")
    assert nothing_valid(nothing) == "no record of the log is a valid event"
    assert nothing_valid(outcomes(unreadable=5000)) is None


def test_a_log_of_which_no_page_is_valid_is_told_from_one_whose_pages_may_follow() -> None:
    """Prices with a currency: every page is rejected, and no click is. Clicks alone: their pages may come later."""
    clicks = ClickOutcomes(received=60, orphan=60)
    no_page = "no page of the log is a valid event"
    assert nothing_valid(Outcomes(PageOutcomes(received=60, dead_letter=60), clicks)) == no_page
    assert nothing_valid(Outcomes(PageOutcomes(), clicks, unreadable=60)) == no_page
    assert nothing_valid(Outcomes(PageOutcomes(received=60, dead_letter=59, open=1), clicks)) is None
    assert nothing_valid(Outcomes(PageOutcomes(), clicks)) is None
    assert nothing_valid(Outcomes()) is None


def report(found: Outcomes) -> Report:
    return build_report(facts(outcomes=found, rejections=[KIND], log_order=IN_ORDER, dead_letters={"not_json": 30}), [])


@pytest.mark.parametrize("healthy", [True, False])
def test_badge_and_last_line_say_whether_all_is_well(
    healthy: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = report(outcomes(late=0 if healthy else 500))
    page = render(made)
    print_report(made, tmp_path / "report.html")
    lines = capsys.readouterr().out.strip().split("\n")
    if healthy:
        assert made.warnings == []
        assert "✓ every record accounted for" in page
        assert lines[-1].startswith("OK: ")
    else:
        assert "✗ 1 warning" in page
        assert "✓ every record accounted for" not in page
        assert "34.2 % of the clicks found no page" in page
        assert lines[-2].startswith("warning: 34.2 % of the clicks found no page")
        assert lines[-1] == "Completed with 1 warning: treat the figures above with caution"
    assert "&lt;b&gt;" in page
    assert any(line.startswith("dead letters: not_json (30)") for line in lines)
    assert "\x1b" not in page + "".join(lines)
