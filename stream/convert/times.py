"""Event times as other systems write them: numbers in any unit, ISO 8601, timestamps of a data frame."""

import datetime
import math
import re
from typing import Any, Final, Literal

from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.values import shown

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
_NANOSECONDS: Final[dict[TimeUnit, int]] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_NANOSECONDS_A_MILLISECOND: Final = 1_000_000
EARLIEST: Final = 946_684_800_000
"""2000-01-01T00:00:00Z, in ms: no click log is older, so an earlier time is a mistake of unit or clock."""
LATEST: Final = 4_102_444_800_000
"""2100-01-01T00:00:00Z, in ms."""
_LARGEST_NUMBER: Final = 1e19
"""More than the nanoseconds of 2100; it also keeps the arithmetic of floats finite."""
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UTC_SUFFIX: Final = re.compile(r"\s*(UTC|GMT|Z)\Z", re.IGNORECASE)
_SPACED_OFFSET: Final = re.compile(r"\s+([+-]\d\d:?\d\d)\Z")
_SLASHES: Final = re.compile(r"\A(\d{4})/(\d\d)/(\d\d)")


def to_millis(value: Any, unit: TimeUnit, zone: datetime.tzinfo | None) -> int:
    """Return the event time in ms since the epoch; parts of a millisecond are dropped, of a float rounded.

    Args:
        value: a number, a numeric string, ISO 8601 text, or a date or datetime of a Parquet file. A date is its
            midnight.
        unit: of numbers. "auto" reads a number as the one unit that puts it between 2000 and 2100: these ranges do
            not overlap.
        zone: of times without one; None rejects them, since a guess can be hours off.

    Raises:
        Unmappable: reasons `missing_time`, `invalid_time`, `time_without_zone`, `implausible_time`.
    """
    if isinstance(value, str):
        value = _parse(value.strip())
    if isinstance(value, bool) or value is None or (isinstance(value, float) and math.isnan(value)):
        raise Unmappable("missing_time", f"the time is {value!r}")
    if isinstance(value, int | float):
        return _checked(_number_to_millis(value, unit), value)
    if isinstance(value, datetime.date):
        return _checked(_datetime_to_millis(value, zone), value)
    raise Unmappable("invalid_time", f"{shown(value)} is no time")


def _parse(text: str) -> int | float | datetime.datetime:
    if not text:
        raise Unmappable("missing_time", "the time is empty")
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        # BigQuery writes the zone as a word, Ruby an offset behind a blank, and many the date with slashes.
        iso = _SPACED_OFFSET.sub(r"\1", _UTC_SUFFIX.sub("+00:00", text))
        return datetime.datetime.fromisoformat(_SLASHES.sub(r"\1-\2-\3", iso))
    except ValueError:
        raise Unmappable("invalid_time", f"{shown(text)} is neither a number nor ISO 8601") from None


def _datetime_to_millis(value: datetime.date, zone: datetime.tzinfo | None) -> int:
    moment = value if isinstance(value, datetime.datetime) else datetime.datetime.combine(value, datetime.time())
    if moment.tzinfo is None:
        if zone is None:
            raise Unmappable("time_without_zone", f"{value} has no time zone; set time.zone in the mapping")
        moment = moment.replace(tzinfo=zone)
    try:
        return (moment - _EPOCH) // datetime.timedelta(milliseconds=1)
    except OverflowError:
        raise Unmappable("implausible_time", f"{value} is not between 2000 and 2100") from None


def _number_to_millis(value: float, unit: TimeUnit) -> int:
    if abs(value) > _LARGEST_NUMBER:
        raise Unmappable("implausible_time", f"the time is {shown(value)}")
    if unit != "auto":
        return _scale(value, unit)
    for candidate in _NANOSECONDS:
        if EARLIEST <= (millis := _scale(value, candidate)) < LATEST:
            return millis
    raise Unmappable("implausible_time", f"{shown(value)} is between 2000 and 2100 in none of the units s, ms, us, ns")


def _scale(value: float, unit: TimeUnit) -> int:
    if isinstance(value, int):
        return value * _NANOSECONDS[unit] // _NANOSECONDS_A_MILLISECOND
    # Decimal fractions of a second have no exact float: rounded, 0.123 s is 123 ms.
    return round(value * (_NANOSECONDS[unit] / _NANOSECONDS_A_MILLISECOND))


def _checked(millis: int, value: object) -> int:
    if not EARLIEST <= millis < LATEST:
        raise Unmappable("implausible_time", f"{shown(value)} is not between 2000 and 2100: is the unit right?")
    return millis
