"""Escapes untrusted bytes, so that a terminal shows control sequences instead of executing them."""

import msgspec


def printable(text: str | bytes) -> str:
    """Escape characters that are not printable and bytes that are not UTF-8; one line."""
    decoded = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
    return "".join(character if character.isprintable() else _escape(character) for character in decoded)


def printable_lines(text: str) -> str:
    """Escape like `printable`, but keep line feeds."""
    return "\n".join(map(printable, text.split("\n")))


def printable_value(value: bytes) -> str:
    """Format JSON on several lines, any other value on one; escaped like `printable`."""
    try:
        value.decode()
        lines = msgspec.json.format(value, indent=2).split(b"\n")
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        lines = [value]
    return "\n".join(printable(line) for line in lines)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
