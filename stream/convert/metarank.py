"""Metarank's events (`item`, `user`, `ranking`, `interaction`), with item metadata as of the ranking's time."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from prectr.stream.convert.event_log import EventLog
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row
from prectr.stream.convert.times import to_millis
from prectr.stream.convert.values import to_id, to_number, to_optional_id, to_text

_QUERY: Final = ("query", "search", "q")
_TITLE: Final = ("title", "name")
_CATEGORY: Final = ("category", "genre", "genres")
_BRAND: Final = ("brand", "vendor")
_OWN_FIELDS: Final = frozenset((*_TITLE, *_CATEGORY, *_BRAND, "price"))
_MAX_FEATURES: Final = 64
_MAX_ITEMS: Final = 200
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class MetarankEvents:
    """Sorts Metarank's events by time, in any number of files, and converts them in `finish`."""

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
        except Unmappable as error:
            self._report.skip(error.reason, row.place, error.detail)
            return
        # What is known of an item at the time of a ranking counts for it.
        self._sorter.add((ts, row.value.get("event") != "item"), _encode((ts, row.place, row.value)))

    def finish(self) -> None:
        """Convert everything that was added."""
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
            raise Unmappable("user_metadata", "users have no metadata here: their history is learned from clicks")
        else:
            raise Unmappable("unknown_event", f"event is {kind!r}")

    def _add_page(self, event: dict[str, Any], ts: int, place: str) -> None:
        listed = event.get("items")
        if not isinstance(listed, list):
            raise Unmappable("items_not_an_array", f"items is {listed!r}"[:200])
        if not listed:
            self._report.empty_pages += 1
            return
        if len(listed) > _MAX_ITEMS:
            raise Unmappable("too_many_items", f"{len(listed)} items, of at most {_MAX_ITEMS}")
        fields = _fields(event)
        self._log.add(
            {
                "type": "impression",
                "request_id": to_id("id", event.get("id")),
                **_user(event),
                "query": to_text("query", _first(fields, _QUERY), 2000) or "",
                "ts": ts,
                "items": [self._item(item, place) for item in listed],
            },
            place,
        )

    def _item(self, listed: Any, place: str) -> dict[str, Any]:
        if not isinstance(listed, dict):
            raise Unmappable("items_not_objects", f"an item is {listed!r}"[:200])
        item_id = to_id("item_id", listed.get("id"))
        known = self._metadata.get(item_id)
        if known is None:
            self._report.skip("item_without_metadata", place, f"nothing was known of item {item_id!r} at that time")
        fields = {**(known or {}), **_fields(listed)}
        item: dict[str, Any] = {"item_id": item_id}
        texts = (("title", _TITLE, 2000), ("category", _CATEGORY, 256), ("brand", _BRAND, 256))
        for name, names, longest in texts:
            value = _first(fields, names)
            text = to_text(name, value[0] if isinstance(value, list) and value else value, longest) if value else None
            if text:
                item[name] = text
        try:
            price = to_number("price", fields.get("price"))
        except Unmappable as error:
            self._report.skip(error.reason, place, error.detail)
            price = None
        if price is not None:
            item["price"] = price
        features = _features(fields, listed)
        if features:
            item["features"] = features
        return item

    def _add_click(self, event: dict[str, Any], ts: int, place: str) -> None:
        action = to_text("type", event.get("type"), 256) or ""
        if action not in self._click_actions:
            raise Unmappable(f"action_{action}"[:60], "not one of the click actions")
        ranking = to_optional_id("ranking", event.get("ranking"))
        if ranking is None:
            raise Unmappable("interaction_without_ranking", "a click is joined to the page it was made on")
        item_id = to_id("item", event.get("item"))
        click = {"type": "click", "request_id": ranking, **_user(event), "item_id": item_id, "ts": ts, "action": action}
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
    return next((fields[name] for name in names if fields.get(name)), None)


def _features(fields: dict[str, Any], listed: dict[str, Any]) -> dict[str, float | str]:
    """Numbers and short texts of an item that are no field of their own; `relevancy` is the engine's score."""
    found: dict[str, float | str] = {}
    for name, value in {**fields, "relevancy": listed.get("relevancy")}.items():
        if name in _OWN_FIELDS or len(found) == _MAX_FEATURES:
            continue
        if isinstance(value, bool):
            found[name] = float(value)
        elif isinstance(value, int | float) or (isinstance(value, str) and 0 < len(value) <= 256):
            found[name] = value
    return found


def _user(event: dict[str, Any]) -> dict[str, str]:
    user = to_optional_id("user", event.get("user"))
    session = to_optional_id("session", event.get("session"))
    if user is None and session is None:
        raise Unmappable("missing_user", "neither user nor session")
    return {"user_id": user} if user is not None else {"session_id": session or ""}
