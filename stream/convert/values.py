"""Values of foreign rows as the fields of events: ids, texts, numbers, features."""

import ast
import datetime
import decimal
import json
import math
import re
import reprlib
import uuid
from collections.abc import Mapping
from typing import Any, Final

from prectr.stream.convert.outcome import Unmappable

MAX_ITEMS: Final = 200
"""Items of a page, as in the contract of events."""
MAX_TEXT: Final = 2000
"""Characters of a query or a title."""
MAX_LABEL: Final = 256
"""Characters of a category, a brand, an action, a context value or a text feature."""
_MAX_EXACT_FLOAT: Final = 2.0**53
_FALSE_TEXTS: Final = frozenset(("", "0", "0.0", "false", "no", "f", "n", "null", "none", "nan"))

_ADJACENT_TEXTS: Final = re.compile(r"""['"]\s+['"]""")

_short_repr = reprlib.Repr()
_short_repr.maxstring = _short_repr.maxother = 80
_short_repr.maxlong = 40


def shown(value: Any) -> str:
    """Return a value as error messages show it: shortened, however large or deep it is."""
    return _short_repr.repr(value)


def to_plain(value: Any) -> Any:
    """Return a value in the types that JSON has, dates and times excepted.

    Decimals become numbers, bytes text (hexadecimal where they are not UTF-8), UUIDs and times of day text, and Arrow's
    maps (lists of pairs) objects. Raises RecursionError for values nested too deeply.
    """
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, list) and value and all(isinstance(each, tuple) and len(each) == 2 for each in value):
        return {str(key): to_plain(each) for key, each in value}
    if isinstance(value, list):
        return [to_plain(each) for each in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, uuid.UUID | datetime.time):
        return str(value)
    return _decoded(value) if isinstance(value, bytes) else value


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def parse_json(text: str) -> Any:
    """Return the value of a text: JSON, or a literal of Python, which pandas writes for lists in a CSV file.

    Raises ValueError or RecursionError where it is neither.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            # Python would join the texts of a numpy array, which no comma separates, into one.
            if _ADJACENT_TEXTS.search(text):
                raise ValueError("no comma between texts")
            return to_plain(ast.literal_eval(text.strip()))
        except (ValueError, SyntaxError, MemoryError):
            raise ValueError(f"neither JSON nor a literal: {error}") from error


def split_list(text: str, separator: str) -> list[str]:
    """Return the parts of a text without the blanks and quotes around them.

    Brackets or braces around the whole text, as PostgreSQL and numpy write them, are no part of it. A blank as
    separator stands for any white space. Raises ValueError for an empty separator.
    """
    text = text.strip()
    if is_bracketed(text):
        text = text[1:-1].strip()
    parts = text.split() if separator == " " else text.split(separator)
    return [_unquoted(part.strip()) for part in parts] if text else []


def is_bracketed(text: str) -> bool:
    """Return whether a text stands in brackets or braces."""
    return text[:1] + text[-1:] in ("[]", "{}")


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def to_id(field: str, value: Any) -> str:
    """Return an id as text; whole numbers in their decimal form, since data frames make floats of integers with gaps.

    Raises Unmappable `missing_FIELD` or `invalid_FIELD`.
    """
    found = to_optional_id(field, value)
    if found is None:
        raise Unmappable(f"missing_{field}", f"{field} is {shown(value)}")
    return found


def to_optional_id(field: str, value: Any) -> str | None:
    """Return an id as `to_id` does, but None where there is none: null, NaN, an empty or blank text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return _checked_text(field, value.strip()) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # A larger float has lost digits, so that it may stand for several ids.
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT_FLOAT:
        return str(int(value))
    raise Unmappable(f"invalid_{field}", f"{field} is {shown(value)}, neither text nor a whole number")


def to_visitor(user_field: str, user: Any, session: Any) -> dict[str, str]:
    """Return the fields that say whose an event is: the user, the session, or both.

    Raises Unmappable `missing_FIELD` where there is neither.
    """
    user_id = to_optional_id(user_field, user)
    session_id = to_optional_id("session_id", session)
    if user_id is None and session_id is None:
        raise Unmappable(f"missing_{user_field}", f"neither {user_field} nor a session id has a value")
    fields = (("user_id", user_id), ("session_id", session_id))
    return {name: value for name, value in fields if value is not None}


def visitor_key(event: Mapping[str, Any]) -> str:
    """Return what the join knows the visitor of an event by: the user, or else the session."""
    key: str = event.get("user_id") or event["session_id"]
    return key


def to_text(field: str, value: Any, longest: int) -> str | None:
    """Return a text of at most `longest` characters, cut off there; None where there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float):
        value = str(value)
    if not isinstance(value, str):
        raise Unmappable(f"invalid_{field}", f"{field} is {shown(value)}, no text")
    return _checked_text(field, value[:longest])


def _checked_text(field: str, text: str) -> str:
    """Return a text that can be encoded: JSON escapes can hold halves of characters."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unmappable(f"invalid_{field}", f"{field} is {shown(text)}: {error.reason}") from None
    return text


def to_number(field: str, value: Any) -> float | None:
    """Return a finite number, from a number or its text; None where there is none."""
    if value is None or isinstance(value, bool) or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Unmappable(f"invalid_{field}", f"{field} is {shown(value)}, no number") from None
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise Unmappable(f"invalid_{field}", f"{field} is {shown(value)}")
    return number


def to_whole(field: str, value: Any, lowest: int, highest: int) -> int | None:
    """Return a whole number within a range, from a number or its text; None where there is none."""
    number = to_number(field, value)
    if number is None:
        return None
    if not number.is_integer() or not lowest <= number <= highest:
        raise Unmappable(f"invalid_{field}", f"{field} is {shown(value)}, no whole number from {lowest} to {highest}")
    return int(number)


def to_feature(name: str, value: Any) -> float | str | None:
    """Return a finite number or a short text; None for anything else."""
    if isinstance(value, str):
        return to_text(name, value, MAX_LABEL) or None
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def is_true(value: Any) -> bool:
    """Return whether a condition holds: as in JMESPath, but 0, and texts such as "0", "false" and "no", are false."""
    if isinstance(value, str):
        return value.strip().lower() not in _FALSE_TEXTS
    return bool(value) and not (isinstance(value, float) and math.isnan(value))
