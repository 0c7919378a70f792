"""Event times as other systems write them: numbers in any unit, ISO 8601, timestamps of a data frame."""

import datetime
import math
from typing import Any, Final, Literal

from prectr.stream.convert.outcome import Unmappable

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
UNITS: Final[dict[str, int]] = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
"""Microseconds in a unit; nanoseconds are divided."""
EARLIEST: Final = 946_684_800_000
"""2000-01-01T00:00:00Z, in ms: no click log is older, so what lies before is a mistake of unit or clock."""
LATEST: Final = 4_102_444_800_000
"""2100-01-01T00:00:00Z, in ms."""


def to_millis(value: Any, unit: TimeUnit, zone: datetime.tzinfo | None) -> int:
    """Return the event time in ms since the epoch.

    Args:
        value: a number, a numeric string, ISO 8601 text, or a date or datetime of a Parquet file.
        unit: of numbers. "auto" reads a number as the one unit that puts it between 2000 and 2100: these ranges do
            not overlap.
        zone: of times without one; None refuses them, since a guess can be hours off.

    Raises:
        Unmappable: reasons `missing_time`, `invalid_time`, `time_without_zone`, `implausible_time`.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise Unmappable("missing_time", "the time is empty")
        try:
            value = int(text)
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                value = _parse_iso(text)
    if isinstance(value, bool) or value is None:
        raise Unmappable("missing_time", f"the time is {value!r}")
    if isinstance(value, int | float):
        return _checked(_number_to_millis(value, unit), value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            if zone is None:
                raise Unmappable("time_without_zone", f"{value} has no time zone; set time.zone in the mapping")
            value = value.replace(tzinfo=zone)
        return _checked(round(value.timestamp() * 1000), value)
    raise Unmappable("invalid_time", f"{value!r} is no time")


def _parse_iso(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Unmappable("invalid_time", f"{text[:60]!r} is neither a number nor ISO 8601") from None


def _number_to_millis(value: float, unit: TimeUnit) -> int:
    if not math.isfinite(value):
        raise Unmappable("invalid_time", f"the time is {value}")
    if unit != "auto":
        return _scale(value, unit)
    for candidate in UNITS:
        if EARLIEST <= _scale(value, candidate) < LATEST:
            return _scale(value, candidate)
    raise Unmappable("implausible_time", f"{value} lies between 2000 and 2100 in no unit of s, ms, us or ns")


def _scale(value: float, unit: str) -> int:
    if unit == "ns":
        return int(value) // 1_000_000
    if isinstance(value, int):
        return value * UNITS[unit] // 1_000
    return round(value * UNITS[unit] / 1_000)


def _checked(millis: int, value: object) -> int:
    if not EARLIEST <= millis < LATEST:
        raise Unmappable("implausible_time", f"{value} is not between 2000 and 2100: is time.unit right?")
    return millis
