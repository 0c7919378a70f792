"""Metarank's events (`item`, `user`, `ranking`, `interaction`), with item metadata as of the ranking's time."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from prectr.stream.convert.event_log import EventLog
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row
from prectr.stream.convert.times import to_millis
from prectr.stream.convert.values import (
    MAX_ITEMS,
    MAX_LABEL,
    MAX_TEXT,
    shown,
    to_feature,
    to_id,
    to_number,
    to_optional_id,
    to_text,
    to_visitor,
)

_QUERY: Final = ("query", "search", "q")
_TITLE: Final = ("title", "name")
_CATEGORY: Final = ("category", "genre", "genres")
_BRAND: Final = ("brand", "vendor")
_OWN_FIELDS: Final = frozenset((*_TITLE, *_CATEGORY, *_BRAND, "price"))
_MAX_FEATURES: Final = 64
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class MetarankEvents:
    """Collects Metarank's events, in any order and from any number of files, and converts them by time in `finish`.

    The latest metadata of every item stay in memory.
    """

    def __init__(
        self, log: EventLog, sorter: ExternalSorter, report: ConversionReport, click_actions: Sequence[str]
    ) -> None:
        """`click_actions`: the types of interaction that are clicks."""
        self._log = log
        self._sorter = sorter
        self._report = report
        self._click_actions = frozenset(click_actions)
        self._metadata: dict[str, dict[str, Any]] = {}

    def add(self, row: Row) -> None:
        """Add a line of the file."""
        self._report.rows += 1
        if isinstance(row.value, Unmappable):
            self._report.skip(row.value.reason, row.place, row.value.detail)
            return
        try:
            ts = to_millis(row.value.get("timestamp"), "auto", None)
            payload = _encode((ts, row.place, row.value))
        except Unmappable as error:
            self._report.skip(error.reason, row.place, error.detail)
        except (UnicodeEncodeError, OverflowError, RecursionError) as error:
            self._report.skip("unreadable_value", row.place, str(error))
        else:
            # Metadata of the time of a ranking are known to it.
            self._sorter.add((ts, row.value.get("event") != "item"), payload)

    def finish(self) -> None:
        """Convert the events by time."""
        for _, payload in self._sorter:
            ts, place, event = _decode(payload)
            try:
                self._convert(event, ts, place)
            except Unmappable as error:
                self._report.skip(error.reason, place, error.detail)

    def _convert(self, event: dict[str, Any], ts: int, place: str) -> None:
        kind = event.get("event")
        if kind == "item":
            fields = self._metadata.setdefault(to_id("item", event.get("item")), {})
            fields.update(_fields(event))
        elif kind == "ranking":
            self._add_page(event, ts, place)
        elif kind == "interaction":
            self._add_click(event, ts, place)
        elif kind == "user":
            raise Unmappable("user_metadata", "metadata of users are not used: their history is learned from clicks")
        else:
            raise Unmappable("unknown_event", f"event is {shown(kind)}")

    def _add_page(self, event: dict[str, Any], ts: int, place: str) -> None:
        listed = event.get("items")
        if not isinstance(listed, list):
            raise Unmappable("items_not_an_array", f"items is {shown(listed)}")
        if not listed:
            self._report.empty_pages += 1
            return
        if len(listed) > MAX_ITEMS:
            raise Unmappable("too_many_items", f"{len(listed)} items, of at most {MAX_ITEMS}")
        fields = _fields(event)
        self._log.add(
            {
                "type": "impression",
                "request_id": to_id("id", event.get("id")),
                **to_visitor("user", event.get("user"), event.get("session")),
                "query": to_text("query", _first(fields, _QUERY), MAX_TEXT) or "",
                "ts": ts,
                "items": [self._item(item, place) for item in listed],
            },
            place,
        )

    def _item(self, listed: Any, place: str) -> dict[str, Any]:
        if not isinstance(listed, dict):
            raise Unmappable("items_not_objects", f"an item is {shown(listed)}")
        item_id = to_id("item_id", listed.get("id"))
        known = self._metadata.get(item_id)
        if known is None:
            self._report.skip("item_without_metadata", place, f"no item event of {shown(item_id)} by that time")
        fields = {**(known or {}), **_fields(listed)}
        item: dict[str, Any] = {"item_id": item_id}
        conversions: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("title", lambda: to_text("title", _first(fields, _TITLE), MAX_TEXT)),
            ("category", lambda: to_text("category", _first(fields, _CATEGORY), MAX_LABEL)),
            ("brand", lambda: to_text("brand", _first(fields, _BRAND), MAX_LABEL)),
            ("price", lambda: to_number("price", fields.get("price"))),
        )
        for name, convert in conversions:
            try:
                value = convert()
            except Unmappable as error:
                # The item is worth keeping without the field.
                self._report.skip(error.reason, place, error.detail)
                continue
            if value is not None and value != "":
                item[name] = value
        features = _features(fields, listed)
        if features:
            item["features"] = features
        return item

    def _add_click(self, event: dict[str, Any], ts: int, place: str) -> None:
        action = to_text("type", event.get("type"), MAX_LABEL) or ""
        if action not in self._click_actions:
            raise Unmappable(f"action_{action}"[:60], "none of the click actions")
        ranking = to_optional_id("ranking", event.get("ranking"))
        if ranking is None:
            raise Unmappable("interaction_without_ranking", "a click is joined to the page on which it was made")
        item_id = to_id("item", event.get("item"))
        click = {
            "type": "click",
            "request_id": ranking,
            **to_visitor("user", event.get("user"), event.get("session")),
            "item_id": item_id,
            "ts": ts,
            "action": action,
        }
        self._log.add(click, place)


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    listed = event.get("fields")
    if not isinstance(listed, list):
        return {}
    return {
        field["name"]: field.get("value")
        for field in listed
        if isinstance(field, dict) and isinstance(field.get("name"), str)
    }


def _first(fields: dict[str, Any], names: Sequence[str]) -> Any:
    """Return the first value that one of the names has; of a list, such as of genres, its first element."""
    value = next((fields[name] for name in names if fields.get(name)), None)
    return value[0] if isinstance(value, list) else value


def _features(fields: dict[str, Any], listed: dict[str, Any]) -> dict[str, float | str]:
    """Return the numbers and short texts of an item without fields of their own; `relevancy` is the engine's score."""
    found: dict[str, float | str] = {}
    for name, value in {**fields, "relevancy": listed.get("relevancy")}.items():
        is_long = isinstance(value, str) and len(value) > MAX_LABEL
        if name in _OWN_FIELDS or is_long or len(found) == _MAX_FEATURES:
            continue
        feature = to_feature(name, value)
        if feature is not None:
            found[name] = feature
    return found
