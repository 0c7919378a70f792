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
        (1_700_000_000, "seconds"),
        (1_700_000_000.25, "seconds"),
        (1_700_000_000_000, "milliseconds"),
        (1_700_000_000_000_000, "microseconds"),
        (1_700_000_000_000_000_000, "nanoseconds"),
        ("2023-11-14T22:13:20Z", "ISO 8601"),
        ("1700000000", "seconds as text"),
        (0, "not a time"),
        (-5, "not a time"),
        (None, "not a time"),
        ("yesterday", "not a time"),
        (float("nan"), "not a time"),
    ],
)
def test_a_unit_of_time_is_told_by_its_magnitude(ts: float | str | None, unit: str) -> None:
    assert unit_of(ts) == unit


def test_mixed_units_are_told_apart() -> None:
    lines = [page(f"r{number}", "u", T + number) for number in range(90)]
    lines += [json.dumps(json.loads(line) | {"ts": 1_700_000_000}).encode() for line in lines[:6]]
    lines += [json.dumps(json.loads(line) | {"ts": T * 1000}).encode() for line in lines[:4]]
    report = check_lines(lines)
    assert report.validity.units == {"milliseconds": 90, "seconds": 6, "microseconds": 4}
    time = next(finding for finding in report.findings if finding.subject == "time")
    assert time.severity == "problem"
    assert time.message == "units of time are mixed: 90 in milliseconds, 6 in seconds, 4 in microseconds"


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
