"""Invalid lines by cause, and units of time."""

import json

import pytest

from prectr.stream.check.time_units import unit_of
from prectr.stream.check.validity import MAX_CAUSES, InvalidLines
from prectr.stream.events.contract import InvalidEvent
from tests.kit.stages.events import SECOND, T, click, page
from tests.stream.check.checked import check_lines, found


def test_invalid_lines_are_counted_by_cause_with_the_first_of_each_and_its_place() -> None:
    price = page("r2", "u", T).replace(b'"title"', b'"price": "$10.50", "title"')
    lines = [page("r1", "u", T), price, b"not json", price, click("r1", "u", T + SECOND), b""]
    validity = check_lines(lines).validity
    assert (validity.pages, validity.clicks, validity.invalid) == (1, 1, 4)
    assert [(cause.lines, cause.reason, cause.place) for cause in validity.causes] == [
        (2, "invalid_field", "log.jsonl:2"),
        (1, "not_json", "log.jsonl:3"),
        (1, "blank", "log.jsonl:6"),
    ]
    assert "price" in validity.causes[0].detail
    assert validity.causes[0].example == price.decode()[:300]


def test_values_in_a_detail_do_not_make_causes_of_their_own() -> None:
    invalid = InvalidLines()
    for number in range(50):
        invalid.add(
            InvalidEvent("not_utf8", f"byte {number} is not UTF-8: invalid", "unreadable", None), b"\xff", "f:1"
        )
    assert [(cause.lines, cause.detail) for cause in invalid.causes()] == [(50, "byte 0 is not UTF-8: invalid")]


def test_the_number_of_causes_kept_is_bounded() -> None:
    invalid = InvalidLines()
    for number in range(MAX_CAUSES + 500):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        invalid.add(InvalidEvent("missing_field", f"no {name}", "click", None), b"{}", "f:1")
    causes = invalid.causes()
    assert (causes[0].detail, causes[0].lines) == ("other causes", 500)
    assert len(causes) == MAX_CAUSES + 1
    assert sum(cause.lines for cause in causes) == invalid.count == MAX_CAUSES + 500


@pytest.mark.parametrize(
    ("ts", "unit"),
    [
        (19_675, "days"),
        (1_700_000_000, "seconds"),
        (1_700_000_000.25, "seconds"),
        (1_700_000_000_000, "milliseconds"),
        (1_700_000_000_000_000, "microseconds"),
        (1_700_000_000_000_000_000, "nanoseconds"),
        (0, "no known unit"),
        (-5, "no known unit"),
        (float("nan"), "no known unit"),
    ],
)
def test_a_unit_of_time_is_told_by_its_magnitude(ts: float, unit: str) -> None:
    assert unit_of(ts) == unit


def test_the_unit_of_a_number_in_quotes_is_told_too() -> None:
    lines = [page("r", "u", T).replace(str(T).encode(), ts) for ts in (b'"1700000000"', b'"yesterday"', b"null", b"[]")]
    assert check_lines(lines).validity.units == {"seconds in quotes": 1}


def test_mixed_units_are_told_apart() -> None:
    lines = [page(f"r{number}", "u", T + number) for number in range(90)]
    lines += [json.dumps(json.loads(line) | {"ts": 1_700_000_000}).encode() for line in lines[:6]]
    lines += [json.dumps(json.loads(line) | {"ts": T * 1000}).encode() for line in lines[:4]]
    report = check_lines(lines)
    assert report.validity.units == {"milliseconds or ISO 8601": 90, "seconds": 6, "microseconds": 4}
    time = next(finding for finding in report.findings if finding.subject == "time")
    assert time.severity == "problem"
    assert time.message == "units of time are mixed: 90 in milliseconds or ISO 8601, 6 in seconds, 4 in microseconds"


def test_a_log_in_seconds_is_a_problem() -> None:
    lines = [page(f"r{number}", "u", 1_700_000_000 + number) for number in range(20)]
    report = check_lines(lines)
    assert report.validity.units == {"seconds": 20}
    assert "ts is not in milliseconds: 20 in seconds" in {finding.message for finding in report.findings}


def test_a_log_without_clicks_pages_or_lines_is_a_problem() -> None:
    assert found(check_lines([page("r", "u", T)]))["events"] == "problem"
    assert found(check_lines([click("r", "u", T)]))["events"] == "problem"
    assert found(check_lines([]))["events"] == "problem"
    assert check_lines([page("r", "u", T), click("r", "u", T + SECOND)]).findings == []


def test_pages_without_items_and_other_actions_are_counted_apart() -> None:
    lines = [
        page("r1", "u", T),
        page("r2", "u", T, items=(), levels=()),
        click("r1", "u", T + SECOND),
        *(click("r1", "u", T + SECOND)[:-1] + b', "action": "cart"}' for _ in range(2)),
    ]
    report = check_lines(lines)
    assert (report.validity.pages, report.validity.empty_pages, report.validity.clicks) == (2, 1, 1)
    assert report.validity.other_actions == {"cart": 2}
    assert (report.clicks.pages, report.clicks.clicks, report.items.pages) == (1, 1, 1)
    assert report.findings == []
    counted = check_lines(lines, click_actions=("click", "cart"))
    assert (counted.validity.clicks, counted.clicks.distinct, counted.validity.other_actions) == (3, 1, {})


def test_a_log_with_other_actions_alone_names_the_setting() -> None:
    lines = [page("r1", "u", T), click("r1", "u", T + SECOND)[:-1] + b', "action": "click_through"}']
    advice = {finding.advice for finding in check_lines(lines).findings}
    assert advice == {"set click_actions; there are 1 click_through"}


def test_a_session_takes_the_place_of_a_user() -> None:
    lines = [page(f"r{number}", f"u{number}", T + number) for number in range(3)]
    lines += [page(f"s{number}", "x", T + number).replace(b'"user_id"', b'"session_id"') for number in range(1)]
    report = check_lines(lines)
    assert (report.visitors.keys, report.fields.by_session, report.fields.ignored) == (4, 0.25, {})
