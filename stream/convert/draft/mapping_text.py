"""The text of a mapping file: sections of TOML, and conditions in JMESPath."""

from prectr.stream.convert.draft.columns import Column, normalised

Fields = dict[str, str]
"""Expressions by the field of a section."""


def one_of(event: Column, words: frozenset[str], prefix: str = "") -> str:
    """Return the condition for an event column to have one of its values that are among the words."""
    values = dict.fromkeys(str(each) for each in event.values if normalised(str(each)) in words)
    literals = (value.replace("\\", "\\\\").replace("'", "\\'") for value in values)
    return " || ".join(f"{prefix}{event.path} == '{literal}'" for literal in literals)


def section(name: str, fields: Fields) -> str:
    """Return a TOML table with a line for each field."""
    return "\n".join([f"[{name}]", *(f"{field} = {_quoted(text)}" for field, text in fields.items())])


def _quoted(text: str) -> str:
    """Return a TOML string; literal where that saves escapes."""
    if text.isprintable() and ('"' in text or "\\" in text) and "'" not in text:
        return f"'{text}'"
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def escaped(text: str) -> str:
    """Return a text with the escapes of TOML for characters that are not printable."""
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)
