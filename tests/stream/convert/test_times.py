"""Promises of event times, in values worked out by hand: 2025-03-01T10:00:00Z is 1,740,823,200 s."""

import datetime
import math
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.times import EARLIEST, LATEST, TimeUnit, to_millis

T = 1_740_823_200_000
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_740_823_200, T),
        (1_740_823_200.123, T + 123),
        (T, T),
        (float(T), T),
        (T * 1000 + 999, T),
        (T * 1_000_000 + 999_999, T),
        ("1740823200", T),
        (" 1740823200.5 ", T + 500),
        ("1.7408232e12", T),
        ("2025-03-01T10:00:00Z", T),
        ("2025-03-01T10:00:00.250+00:00", T + 250),
        ("2025-03-01T11:00:00+0100", T),
        ("2025-03-01 10:00:00+00", T),
        ("2025-03-01 10:00:00 UTC", T),
        ("2025-03-01 10:00:00.123456 UTC", T + 123),
        ("2025-03-01 11:00:00 +0100", T),
        ("2025/03/01 10:00:00Z", T),
        ("2025-03-01T10:00:00.999999999Z", T + 999),
        (datetime.datetime(2025, 3, 1, 10, tzinfo=datetime.UTC), T),
        (datetime.datetime(2025, 3, 1, 11, tzinfo=BERLIN), T),
        (datetime.datetime(2025, 3, 1, 10, 0, 0, 999_999, tzinfo=datetime.UTC), T + 999),
    ],
)
def test_a_time_of_any_unit_or_form_is_milliseconds(value: object, expected: int) -> None:
    assert to_millis(value, "auto", None) == expected


@pytest.mark.parametrize(("unit", "value"), [("s", T // 1000), ("ms", T), ("us", T * 1000), ("ns", T * 1_000_000)])
def test_a_unit_is_used_as_given(unit: TimeUnit, value: int) -> None:
    assert to_millis(value, unit, None) == T
    assert to_millis(float(value), unit, None) == T
    other: TimeUnit = "ms" if unit != "ms" else "s"
    with pytest.raises(Unmappable) as error:
        to_millis(value, other, None)
    assert error.value.reason == "implausible_time"


@given(millis=st.integers(EARLIEST, LATEST - 1), factor=st.sampled_from([1, 1000, 1_000_000]))
def test_between_2000_and_2100_the_unit_of_whole_numbers_is_never_mistaken(millis: int, factor: int) -> None:
    assert to_millis(millis * factor, "auto", None) == millis
    assert to_millis(millis // 1000, "auto", None) == millis // 1000 * 1000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-03-01T11:00:00", T),
        (datetime.datetime(2025, 3, 1, 11), T),
        # Summer time begins on 2025-03-30: noon is 10:00 UTC.
        ("2025-03-30 12:00:00", 1_743_328_800_000),
        ("2025-03-01", T - 11 * 3_600_000),
        (datetime.date(2025, 3, 1), T - 11 * 3_600_000),
        ("2025-03-01T10:00:00Z", T),
    ],
)
def test_times_without_a_zone_are_of_the_zone_that_is_set(value: object, expected: int) -> None:
    assert to_millis(value, "auto", BERLIN) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing_time"),
        ("", "missing_time"),
        ("  ", "missing_time"),
        (True, "missing_time"),
        (math.nan, "missing_time"),
        ("nan", "missing_time"),
        ("2025-03-01T10:00:00", "time_without_zone"),
        (datetime.datetime(2025, 3, 1, 10), "time_without_zone"),
        (datetime.date(2025, 3, 1), "time_without_zone"),
        ("yesterday", "invalid_time"),
        ("01/03/2025 10:00", "invalid_time"),
        ("2025-13-01T10:00:00Z", "invalid_time"),
        ([T], "invalid_time"),
        ({"ts": T}, "invalid_time"),
        (0, "implausible_time"),
        (-1, "implausible_time"),
        (math.inf, "implausible_time"),
        (1e300, "implausible_time"),
        ("9" * 5000, "implausible_time"),
        (20_250_301, "implausible_time"),
        ("1999-12-31T23:59:59Z", "implausible_time"),
        ("2100-01-01T00:00:00Z", "implausible_time"),
        ("0001-01-01T00:00:00+14:00", "implausible_time"),
        ("9999-12-31T23:59:59-14:00", "implausible_time"),
    ],
)
def test_every_other_value_is_rejected_with_a_reason(value: object, reason: str) -> None:
    with pytest.raises(Unmappable) as error:
        to_millis(value, "auto", None)
    assert error.value.reason == reason
    assert len(error.value.detail) < 200
