"""Units of time: what `ts` counts, told by its magnitude."""

from typing import Final

import msgspec

from prectr.stream.events.event_time import MIN_TS

MILLISECONDS: Final = "milliseconds"
_IN_MILLISECONDS: Final = (
    ("seconds", 1_000.0),
    (MILLISECONDS, 1.0),
    ("microseconds", 1e-3),
    ("nanoseconds", 1e-6),
    ("days", 86_400_000.0),
)
_LATEST: Final = 4_102_444_800_000
"""2100-01-01 in ms. From 2000 to there, no time is plausible in two units."""
VALID: Final = "milliseconds or ISO 8601"
UNKNOWN: Final = "no known unit"


class _Time(msgspec.Struct):
    ts: int | float | str | None = None


_decode_time = msgspec.json.Decoder(_Time).decode


def unit_of(ts: float) -> str:
    """Return the unit in which a number is a time between 2000 and 2100: `seconds` …, or `no known unit`."""
    plausible = (unit for unit, milliseconds in _IN_MILLISECONDS if MIN_TS <= ts * milliseconds < _LATEST)
    return next(plausible, UNKNOWN)


class TimeUnits:
    """Counts the times of a log by their unit."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add_line(self, line: bytes) -> None:
        """Count the time of a line that is not valid, if one in another unit is found in it."""
        try:
            ts = _decode_time(line).ts
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if isinstance(ts, str):
            try:
                unit = f"{unit_of(float(ts))} in quotes"
            except ValueError:
                return
        elif ts is None:
            return
        else:
            unit = unit_of(ts)
        if not unit.startswith((UNKNOWN, MILLISECONDS)):
            self._counts[unit] = self._counts.get(unit, 0) + 1

    def counts(self, valid: int) -> dict[str, int]:
        """Return the counts by unit, the most frequent first. valid: number of valid events."""
        counts = self._counts | ({VALID: valid} if valid else {})
        return dict(sorted(counts.items(), key=lambda entry: -entry[1]))
