"""Event times as they may be written: milliseconds, or ISO 8601 with a time zone."""

import re
from datetime import UTC, date, datetime
from typing import Any, Final

MIN_TS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z in ms. No log of clicks is older, so an earlier time is a wrong unit or a wrong clock."""
MAX_TS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999. Microseconds and nanoseconds of our time are beyond it."""

_DAY_OF_YEAR: Final = "(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME: Final = "([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]{1,9}))?)?"
_ZONE: Final = "(?:[Zz]|UTC|GMT|([+-])([01][0-9]|2[0-3]):?([0-5][0-9])?)"
_REST: Final = rf"-{_DAY_OF_YEAR}[Tt ]{_TIME} ?{_ZONE}(?!\n)$"
ISO_PATTERN: Final = f"^[2-9][0-9]{{3}}{_REST}"
"""ISO 8601 with a zone, of the years 2000 to 9999, as a regular expression of Python and of JSON Schema."""

_match: Final = re.compile(f"^([0-9]{{4}}){_REST}").match
_match_without_zone: Final = re.compile(f"^[0-9]{{4}}-{_DAY_OF_YEAR}(?:[Tt ]{_TIME})?$").match
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY: Final = 86_400_000
_MIN_SECONDS: Final = MIN_TS // 1000
_MAX_SECONDS: Final = 4_102_444_800
"""2100-01-01. Up to there a number is taken for a time in another unit."""
_MAX_NANOSECONDS: Final = _MAX_SECONDS * 10**9
_UNITS: Final = (
    ("days", 86_400.0, "multiply by 86,400,000"),
    ("seconds", 1.0, "multiply by 1,000"),
    ("microseconds", 1e-6, "divide by 1,000"),
    ("nanoseconds", 1e-9, "divide by 1,000,000"),
)


def parse_iso(text: str) -> int:
    """Return the time in ms since the epoch of ISO 8601 with a zone, of any year; parts of a ms are dropped.

    Raises ValueError for a text that does not match, and for a day that is not in the calendar.
    """
    found = _match(text)
    if found is None:
        raise ValueError("no ISO 8601 time with a zone")
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = found.groups()
    days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    minutes = int(hour) * 60 + int(minute)
    if sign is not None:
        offset = int(zone_hours) * 60 + int(zone_minutes or 0)
        minutes -= offset if sign == "+" else -offset
    millis = int((fraction or "")[:3].ljust(3, "0"))
    return days * _DAY + minutes * 60_000 + int(second or 0) * 1000 + millis


def is_implausible(ts: Any) -> bool:
    """Return whether a value is a time, in one of the forms that are read, but before 2000 or after the year 9999."""
    if isinstance(ts, str):
        try:
            ts = parse_iso(ts)
        except ValueError:
            return False
    return isinstance(ts, int | float) and not isinstance(ts, bool) and not MIN_TS <= ts <= MAX_TS


def explain_time(ts: Any) -> str:
    """Return what is wrong with a value that is not accepted as an event time."""
    if isinstance(ts, str):
        return _explain_text(ts)
    if isinstance(ts, bool) or not isinstance(ts, int | float):
        return "must be milliseconds since 1970, a whole number, or ISO 8601 with a time zone"
    if not is_implausible(ts):
        return "has a fraction: milliseconds are whole numbers"
    for unit, seconds, remedy in _UNITS if abs(ts) < _MAX_NANOSECONDS else ():
        if _MIN_SECONDS <= ts * seconds < _MAX_SECONDS:
            moment = datetime.fromtimestamp(ts * seconds, UTC)
            return f"looks like {unit} ({moment:%Y-%m-%d}): ts is in milliseconds, so {remedy}"
    if ts == 0:
        return "is the start of 1970: a missing time, written as 0?"
    return f"is {'before 2000' if ts < MIN_TS else 'after the year 9999'}: ts is in milliseconds since 1970"


def _explain_text(ts: str) -> str:
    if _match(ts):
        return _explain_moment(ts)
    if re.fullmatch(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*", ts):
        return "is a date without a time of day: the order of events within the day is needed"
    if _match_without_zone(ts):
        return "has no time zone: append Z (UTC) or an offset such as +01:00"
    if re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?\s*", ts):
        return "is a number in quotes: write it without them"
    return "is not ISO 8601 with a time zone, such as 2026-01-31T12:00:00Z"


def _explain_moment(ts: str) -> str:
    """Return why a text in the right form is no event time."""
    try:
        millis = parse_iso(ts)
    except ValueError:
        return "is not in the calendar"
    if MIN_TS <= millis <= MAX_TS:
        return "is of the year 1999 in its zone: write it in UTC"
    return "is before 2000" if millis < MIN_TS else "is after the year 9999"
