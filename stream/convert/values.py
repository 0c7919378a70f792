"""Values of foreign rows as the fields of events: ids, texts, numbers."""

import decimal
import math
from typing import Any

from prectr.stream.convert.outcome import Unmappable


def to_id(field: str, value: Any) -> str:
    """Return an id as text; integral numbers in their decimal form, since data frames make floats of ids.

    Raises Unmappable `missing_FIELD` or `invalid_FIELD`.
    """
    found = to_optional_id(field, value)
    if found is None:
        raise Unmappable(f"missing_{field}", f"{field} is {value!r}")
    return found


def to_optional_id(field: str, value: Any) -> str | None:
    """As `to_id`, but None where there is none."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float | decimal.Decimal) and value == int(value):
        return str(int(value))
    raise Unmappable(f"invalid_{field}", f"{field} is {value!r}, neither text nor a whole number")


def to_text(field: str, value: Any, longest: int) -> str | None:
    """Return a text of at most `longest` characters, cut off there; None where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool | int | float | decimal.Decimal):
        value = str(value)
    if not isinstance(value, str):
        raise Unmappable(f"invalid_{field}", f"{field} is {value!r}, no text")
    return value[:longest]


def to_number(field: str, value: Any) -> float | None:
    """Return a finite number, from a number or its text; None where there is none."""
    if value is None or value == "" or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Unmappable(f"invalid_{field}", f"{field} is {value!r}, no number") from None
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise Unmappable(f"invalid_{field}", f"{field} is {value!r}")
    return number


def to_whole(field: str, value: Any, lowest: int, highest: int) -> int | None:
    """Return a whole number within a range, from a number or its text; None where there is none."""
    number = to_number(field, value)
    if number is None:
        return None
    if number != int(number) or not lowest <= number <= highest:
        raise Unmappable(f"invalid_{field}", f"{field} is {value!r}; it is a whole number from {lowest} to {highest}")
    return int(number)


def is_true(value: Any) -> bool:
    """Whether a condition holds: JMESPath's truth, and of the texts of a CSV file not 0, false, no, f, n and empty."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "no", "f", "n", "null", "none")
    return bool(value) and not (isinstance(value, float) and math.isnan(value))
