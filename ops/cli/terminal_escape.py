"""Bytes of anybody's as text that a terminal shows and does not obey."""

import msgspec


def printable(text: str | bytes) -> str:
    """One line: what is not printable, and what is not UTF-8, is escaped."""
    decoded = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
    return "".join(character if character.isprintable() else _escape(character) for character in decoded)


def printable_value(value: bytes) -> str:
    """A value over several lines if it is JSON, in one else; escaped as `plain`."""
    try:
        value.decode()
        lines = msgspec.json.format(value, indent=2).split(b"\n")
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        lines = [value]
    return "\n".join(printable(line) for line in lines)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
