"""Tells once which fields of a log nothing reads, so that a team's own signals are not lost without a word."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from prectr.stream.events.contract import MAX_EVENT_BYTES
from prectr.stream.events.wire import WireClick, WireItem, WirePage

_KNOWN: Final = {
    "impression": frozenset(("type", *WirePage.__struct_fields__)),
    "click": frozenset(("type", *WireClick.__struct_fields__)),
    "item": frozenset(WireItem.__struct_fields__),
}
_ADVICE: Final = {
    "impression": "numbers and short texts of the page are read from its `features` and `context`",
    "click": "what else happened may be an `action`",
    "item": "numbers and short texts of an item are read from its `features`",
}
_HOLDERS: Final = {"impression": "impressions", "click": "clicks", "item": "items"}
_LINES_BETWEEN: Final = 256
"""One line in so many is looked at: a thousandth of the time that decoding all of them takes."""
_MAX_TOLD: Final = 30
_EXAMPLE_CHARACTERS: Final = 60
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_log: Final = logging.getLogger(__name__)


class IgnoredFields:
    """Remembers which fields it has told of: each once, with an example, and at most 30 of them."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def look_at_columns(self, path: Path, columns: Sequence[str]) -> None:
        """Log the columns of a file that are not read."""
        for name in columns:
            if ("column", name) in self._told or len(self._told) >= _MAX_TOLD:
                continue
            self._told.add(("column", name))
            _log.warning(
                "the column %s of %s is not read: %s",
                _shown(name),
                path,
                _ADVICE["item" if name.startswith("items.") else "impression"],
            )

    def look_at(self, lines: Sequence[bytes]) -> None:
        """Look at the first of some consecutive lines and at a few others, and log the fields that are ignored."""
        for line in lines[::_LINES_BETWEEN] if len(self._told) < _MAX_TOLD else ():
            for holder, name, value in _ignored_in(line):
                if (holder, name) in self._told or len(self._told) >= _MAX_TOLD:
                    continue
                self._told.add((holder, name))
                _log.warning(
                    "the field %s of %s is not read (its value here: %s): %s",
                    _shown(name),
                    _HOLDERS[holder],
                    _shown(value),
                    _ADVICE[holder],
                )


def _ignored_in(line: bytes) -> Iterator[tuple[str, str, Any]]:
    """Yield the ignored fields of an event and of its first item: holder, name and value."""
    if len(line) > MAX_EVENT_BYTES:
        return
    try:
        event = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    kind = event.get("type")
    if kind not in ("impression", "click"):
        return
    items = event.get("items")
    holders = [(kind, event)]
    if isinstance(items, list) and items and isinstance(items[0], dict):
        holders.append(("item", items[0]))
    for holder, fields in holders:
        for name, value in fields.items():
            if name not in _KNOWN[holder]:
                yield holder, name, value


def _shown(value: Any) -> str:
    """Return a value as JSON in ASCII, shortened."""
    text = json.dumps(value)
    return text if len(text) <= _EXAMPLE_CHARACTERS else text[:_EXAMPLE_CHARACTERS] + "…"
