"""HTML and SVG from Python, with every text escaped: only `tag` makes markup."""

from html import escape
from typing import Final

_CONTROLS: Final = dict.fromkeys((*range(9), 11, *range(14, 32), *range(127, 160)), "�")


class Markup(str):
    """A string that is HTML already; any other string is text and gets escaped."""

    __slots__ = ()


def tag(name: str, *children: "str | Markup", **attributes: str | float) -> Markup:
    """An element. In attribute names a trailing underscore is dropped and others are hyphens (class_, aria_label)."""
    written = "".join(f' {_attribute(key)}="{escape(_value(value))}"' for key, value in attributes.items())
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def stat(path: str, shown: str) -> Markup:
    """A figure of the page that says where it stands in the JSON beside it: steps with slashes, as in levels/4/auc."""
    return tag("span", shown, data_stat=path)


def join(*children: "str | Markup") -> Markup:
    """Children one after the other, without an element around them."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_visible(child)) for child in children))


def _visible(text: str) -> str:
    """Text with the control characters that HTML forbids (ids and queries may hold them) replaced."""
    return text.translate(_CONTROLS)


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return _visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
