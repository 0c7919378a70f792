"""Compares a number displayed on a page with its value."""

from prectr.ops.report.numbers import DASH


def equals(text: str, value: float | None) -> bool:
    """Whether the text is this value, rounded to the displayed decimal places."""
    if value is None or text == DASH:
        return value is None and text == DASH
    plain = text.replace(",", "")
    places = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5000001 * 10.0**-places
