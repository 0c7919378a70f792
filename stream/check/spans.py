"""Spans of time in words."""

from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60))


def format_span(milliseconds: float) -> str:
    """Return a span of time in the largest unit of which it has two, to about two digits, such as `4.2 s` or `13 d`."""
    seconds = milliseconds / 1000
    unit, size = next(((unit, size) for unit, size in _UNITS if abs(seconds) >= 2 * size), ("s", 1))
    value = seconds / size
    return f"{value:,.0f} {unit}" if abs(value) >= 10 else f"{value:.1f} {unit}"
