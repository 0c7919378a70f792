"""Formats numbers and places ticks."""

import itertools
import math
from datetime import UTC, datetime

DASH = "–"

_SECOND = 1000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_TIME_STEPS = (
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 4, 7, 14, 28, 91, 182, 365)),
)


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def fixed(value: float | None, decimals: int = 4) -> str:
    """A number with fixed decimals; a dash if undefined."""
    return DASH if value is None else f"{value:,.{decimals}f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share as a percentage; a dash if undefined."""
    return DASH if value is None else f"{100 * value:.{decimals}f} %"


def ratio(part: float, whole: float) -> float | None:
    """part / whole; None if whole is 0."""
    return part / whole if whole else None


def duration(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, smaller, smaller_name in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit:,} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def moment(ms: int) -> str:
    """Event time, ms since the epoch, to the minute in UTC."""
    return _utc(ms).strftime("%-d %b %Y, %H:%M")


def timestamp(ms: int) -> str:
    """A time, ms since the epoch, to the second in UTC."""
    return _utc(ms).strftime("%Y-%m-%d %H:%M:%S")


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(min(ms // 1000, 253_402_300_799), UTC)


def ticks(low: float, high: float, max_count: int = 6) -> list[float]:
    """Round numbers within [low, high], about `max_count` at most, in steps of 1, 2, 2.5 or 5 times a power of 10."""
    raw = (high - low) / max_count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def decimals_for(values: list[float]) -> int:
    """The number of decimals needed to distinguish the ticks."""
    if len(values) < 2:
        return 3
    step = min(b - a for a, b in itertools.pairwise(values))
    return next(decimals for decimals in range(9) if abs(round(step, decimals) - step) < step * 1e-6)


def time_ticks(low: int, high: int, max_count: int = 6) -> list[tuple[int, str]]:
    """Round times (UTC) within [low, high], in ms, with labels."""
    span = max(high - low, 1)
    step = next((step for step in _TIME_STEPS if span / step <= max_count), 0)
    while not step or span / step > max_count:
        step = (step or _TIME_STEPS[-1]) * 2
    form = "%H:%M" if step < _DAY else "%-d %b" if step < 180 * _DAY else "%Y"
    return [
        (at, _utc(at).strftime("%-d %b" if step < _DAY and at % _DAY == 0 else form))
        for at in range(-(-low // step) * step, high + 1, step)
    ]
