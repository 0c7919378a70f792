"""What a figure on a page says, held against the number that a program is given."""

from prectr.ops.report.numbers import DASH


def equals(text: str, value: float | None) -> bool:
    """Whether a figure as it is written is this number, rounded to the places that are written."""
    if value is None or text == DASH:
        return value is None and text == DASH
    plain = text.replace(",", "")
    places = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5000001 * 10.0**-places
