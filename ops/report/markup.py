"""Builds HTML and SVG; every text is escaped, only `tag` makes markup."""

from html import escape
from typing import Final

_CONTROLS: Final = dict.fromkeys((*range(9), 11, *range(14, 32), *range(127, 160)), "�")


class Markup(str):
    """A string of HTML; any other string is text and is escaped."""

    __slots__ = ()


def tag(name: str, *children: "str | Markup", **attributes: str | float) -> Markup:
    """An element. In attribute names a trailing underscore is dropped and others are hyphens (class_, aria_label)."""
    written = "".join(f' {_attribute(key)}="{escape(_value(value))}"' for key, value in attributes.items())
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def stat(path: str, shown: str) -> Markup:
    """A number with its path in the JSON as an attribute, such as levels/4/auc."""
    return tag("span", shown, data_stat=path)


def join(*children: "str | Markup") -> Markup:
    """Concatenate children without an element around them."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_visible(child)) for child in children))


def _visible(text: str) -> str:
    """Replace control characters that HTML forbids; ids and queries may contain them."""
    return text.translate(_CONTROLS)


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return _visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
