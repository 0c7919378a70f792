"""Units of time: what `ts` counts, told by its magnitude."""

from datetime import datetime
from typing import Final

import msgspec

_UNITS: Final = ((10**11, "seconds"), (10**14, "milliseconds"), (10**17, "microseconds"), (10**20, "nanoseconds"))
"""Upper limits. Read in the right unit, each covers the years 1973 to 5138, so no plausible time is in two."""
ISO: Final = "ISO 8601"
UNKNOWN: Final = "not a time"


class _Time(msgspec.Struct):
    ts: int | float | str | None = None


_decode_time = msgspec.json.Decoder(_Time).decode


def unit_of(ts: float | str | None) -> str:
    """Return the unit of a time as it was logged: `seconds` … `nanoseconds`, `ISO 8601`, or `not a time`."""
    if isinstance(ts, str):
        try:
            number = float(ts)
        except ValueError:
            return _unit_of_text(ts)
        return f"{unit_of(number)} as text"
    if ts is None or ts <= 0:
        return UNKNOWN
    return next((name for limit, name in _UNITS if ts < limit), UNKNOWN)


def _unit_of_text(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return UNKNOWN
    return ISO


class TimeUnits:
    """Counts the times of a log by their unit."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, ts: int) -> None:
        """Count the time of a valid event, which the contract reads as milliseconds."""
        self._add("milliseconds" if ts >= 10**11 else unit_of(ts))

    def add_line(self, line: bytes) -> None:
        """Count the time of a line that is not valid, if one is found in it."""
        try:
            unit = unit_of(_decode_time(line).ts)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if unit != UNKNOWN:
            self._add(unit)

    def counts(self) -> dict[str, int]:
        """Return the counts by unit, the most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda entry: -entry[1]))

    def _add(self, unit: str) -> None:
        self._counts[unit] = self._counts.get(unit, 0) + 1
