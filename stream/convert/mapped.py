"""Rows to events by a mapping."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from prectr.state.errors import ConfigError, InputError
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.mapping import ClickSection, Expression, ItemsSection, MappingFile, expressions, zone_of
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row, read_rows
from prectr.stream.convert.times import to_millis
from prectr.stream.convert.values import (
    MAX_ITEMS,
    MAX_LABEL,
    MAX_TEXT,
    is_true,
    shown,
    to_feature,
    to_id,
    to_number,
    to_text,
    to_visitor,
    to_whole,
    visitor_key,
)

_ITEM_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "title": lambda value: to_text("title", value, MAX_TEXT),
    "relevance": lambda value: to_whole("relevance", value, 1, 4),
    "price": lambda value: to_number("price", value),
    "category": lambda value: to_text("category", value, MAX_LABEL),
    "brand": lambda value: to_text("brand", value, MAX_LABEL),
    "position": lambda value: to_whole("position", value, 1, 1_000_000),
}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class EventSink(Protocol):
    """Takes the events of rows. `place`: of the row, for messages."""

    def add(self, event: dict[str, Any], place: str) -> None:
        """Take an event, or reject it where the decoder of events does."""

    def reject(self, reason: str, place: str, detail: str) -> None:
        """Take note of a row, page or click that cannot become an event."""


class MappedRows:
    """Converts rows to events. Items that come one to a row are collected in `fragments` until `finish`."""

    def __init__(
        self,
        mapping: MappingFile,
        folder: Path,
        log: EventSink,
        fragments: ExternalSorter | None,
        report: ConversionReport,
    ) -> None:
        """Compile the mapping.

        Args:
            folder: of a relative catalogue file.
            log: takes the events.
            fragments: None where pages cannot be collected, since the rows never end.
            report: counts rows, pages without items, and fields left out.

        Raises:
            ConfigError: an expression is wrong, or pages would have to be collected.
            InputError: the catalogue cannot be read.
        """
        self._mapping = mapping
        self._log = log
        self._fragments = fragments
        self._report = report
        self._zone = zone_of(mapping)
        self._catalogue = _read_catalogue(mapping, folder, report)
        self._page = _PageMapping(mapping) if mapping.page is not None else None
        self._clicks = [_ClickMapping(number, click) for number, click in enumerate(mapping.click)]
        if fragments is None and self._page is not None and self._page.each is None:
            raise ConfigError(
                "[page.items] needs `each`: items that come one to a record would never make a whole page"
            )

    def add(self, row: Row) -> None:
        """Convert one row; a page or click that cannot be mapped is counted by reason."""
        self._report.rows += 1
        if isinstance(row.value, Unmappable):
            self._log.reject(row.value.reason, row.place, row.value.detail)
            return
        applies = False
        if self._page is not None:
            applies |= self._attempt(partial(self._add_page, self._page), row.value, row.place)
        for click in self._clicks:
            applies |= self._attempt(partial(self._add_clicks, click), row.value, row.place)
        if not applies:
            self._report.skip("no_section_applies", row.place, "neither a page nor a click by any `when`")

    def finish(self) -> None:
        """Write the pages whose items came one to a row."""
        for page, shown_items, place in self._collected():
            if shown_items > MAX_ITEMS:
                self._log.reject("too_many_items", place, f"{shown_items} items, of at most {MAX_ITEMS}")
            else:
                if all("position" in item for item in page["items"]):
                    page["items"].sort(key=lambda item: item["position"])
                self._log.add(page, place)

    def _attempt(self, convert: Callable[[dict[str, Any], str], bool], row: dict[str, Any], place: str) -> bool:
        """Return whether a section applies to a row, also where the row then cannot be mapped."""
        try:
            return convert(row, place)
        except Unmappable as error:
            self._log.reject(error.reason, place, error.detail)
            return True

    def _add_page(self, page: "_PageMapping", row: dict[str, Any], place: str) -> bool:
        if page.when is not None and not is_true(page.when(row)):
            return False
        event: dict[str, Any] = {"type": "impression", **self._head(page.fields, row)}
        event["query"] = to_text("query", _value(page.fields, "query", row), MAX_TEXT) or ""
        for name, found in (("context", _texts(page.context, row)), ("features", _features(page.features, row))):
            if found:
                event[name] = found
        if page.each is None:
            item = self._item(page, {"item": row, "row": row, "index": 0, "catalogue": None}, place)
            assert self._fragments is not None
            self._fragments.add((visitor_key(event), event["request_id"]), _encode((event, item, place)))
            return True
        elements = page.each(row)
        if not elements:
            self._report.empty_pages += 1
            return True
        if not isinstance(elements, list):
            raise Unmappable("items_not_an_array", f"{page.each.name} gives {shown(elements)}")
        if len(elements) > MAX_ITEMS:
            raise Unmappable("too_many_items", f"{len(elements)} items, of at most {MAX_ITEMS}")
        event["items"] = [
            self._item(page, {"item": element, "row": row, "index": index, "catalogue": None}, place)
            for index, element in enumerate(elements)
        ]
        self._log.add(event, place)
        return True

    def _add_clicks(self, click: "_ClickMapping", row: dict[str, Any], place: str) -> bool:
        if click.each is None:
            if click.when is not None and not is_true(click.when(row)):
                return False
            self._add_click(click, row, place)
            return True
        elements = click.each(row)
        if elements is None:
            return False
        if not isinstance(elements, list):
            elements = [elements]
        applies = False
        for index, element in enumerate(elements):
            scope = {"item": element, "row": row, "index": index, "catalogue": None}
            if click.when is None or is_true(click.when(scope)):
                applies = True
                self._add_click(click, scope, place)
        return applies

    def _add_click(self, click: "_ClickMapping", scope: dict[str, Any], place: str) -> None:
        event = {"type": "click", **self._head(click.fields, scope)}
        event["item_id"] = to_id("item_id", click.fields["item_id"](scope))
        action = to_text("action", _value(click.fields, "action", scope), MAX_LABEL)
        if action:
            event["action"] = action
        self._log.add(event, place)

    def _head(self, fields: dict[str, Expression], scope: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that pages and clicks have in common."""
        return {
            "request_id": to_id("request_id", fields["request_id"](scope)),
            **to_visitor("user_id", _value(fields, "user_id", scope), _value(fields, "session_id", scope)),
            "ts": to_millis(fields["ts"](scope), self._mapping.time.unit, self._zone),
        }

    def _item(self, page: "_PageMapping", scope: dict[str, Any], place: str) -> dict[str, Any]:
        fields = page.item_fields
        item_id = to_id("item_id", fields["item_id"](scope))
        if self._catalogue is not None:
            scope["catalogue"] = self._catalogue.get(item_id)
            if scope["catalogue"] is None:
                self._report.skip("item_not_in_catalogue", place, f"item {shown(item_id)}")
        item: dict[str, Any] = {"item_id": item_id}
        for name, convert in _ITEM_FIELDS.items():
            if name not in fields:
                continue
            try:
                found = convert(fields[name](scope))
            except Unmappable as error:
                # The item is worth keeping without the field.
                self._report.skip(error.reason, place, error.detail)
                continue
            if found is not None and found != "":
                item[name] = found
        features = _features(page.item_features, scope)
        if features:
            item["features"] = features
        return item

    def _collected(self) -> Iterator[tuple[dict[str, Any], int, str]]:
        """Yield pages made of their rows, with the number of different items and the place of the first row.

        The time of a page is that of its earliest row. A row that repeats an item of its page is counted and left out.
        """
        page: dict[str, Any] = {}
        current: Any = None
        place, seen, items = "", set[bytes](), 0
        for key, (event, item, row_place) in _decoded(self._fragments or ()):
            if key != current:
                if current is not None:
                    yield page, items, place
                page, place, current = {**event, "items": []}, row_place, key
                seen, items = set(), 0
            page["ts"] = min(page["ts"], event["ts"])
            content = _encode(item)
            if content in seen:
                self._report.skip("repeated_item", row_place, f"{shown(item['item_id'])} is on its page already")
                continue
            items += 1
            # A page that has become too large is only counted on, in bounded memory.
            if items <= MAX_ITEMS:
                seen.add(content)
                page["items"].append(item)
        if current is not None:
            yield page, items, place


class _PageMapping:
    """The expressions of `[page]`."""

    def __init__(self, mapping: MappingFile) -> None:
        page = mapping.page
        assert page is not None
        head = {name: getattr(page, name) for name in ("request_id", "user_id", "session_id", "query", "ts")}
        self.fields = expressions("page", head)
        _check_user("page", self.fields)
        self.when = Expression("page.when", page.when) if page.when is not None else None
        self.context = expressions("page.context", page.context)
        self.features = expressions("page.features", page.features)
        self.each = Expression("page.items.each", page.items.each) if page.items.each is not None else None
        names = [name for name in ItemsSection.__struct_fields__ if name not in ("each", "features")]
        self.item_fields = expressions("page.items", {name: getattr(page.items, name) for name in names})
        self.item_features = expressions("page.items.features", page.items.features)


class _ClickMapping:
    """The expressions of one `[[click]]`."""

    def __init__(self, number: int, click: ClickSection) -> None:
        name = f"click[{number}]"
        fields = {each: getattr(click, each) for each in click.__struct_fields__ if each not in ("when", "each")}
        self.fields = expressions(name, fields)
        _check_user(name, self.fields)
        self.when = Expression(f"{name}.when", click.when) if click.when is not None else None
        self.each = Expression(f"{name}.each", click.each) if click.each is not None else None


def _check_user(section: str, fields: dict[str, Expression]) -> None:
    if "user_id" not in fields and "session_id" not in fields:
        raise ConfigError(f"[{section}] needs user_id or session_id: clicks are joined to pages by it")


def _value(fields: dict[str, Expression], name: str, scope: Any) -> Any:
    expression = fields.get(name)
    return None if expression is None else expression(scope)


def _texts(fields: dict[str, Expression], scope: Any) -> dict[str, str]:
    found = {name: to_text(name, expression(scope), MAX_LABEL) for name, expression in fields.items()}
    return {name: text for name, text in found.items() if text}


def _features(fields: dict[str, Expression], scope: Any) -> dict[str, float | str]:
    """Return numbers and short texts by name; missing values and those of other types are left out."""
    found = {name: to_feature(name, expression(scope)) for name, expression in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def _read_catalogue(mapping: MappingFile, folder: Path, report: ConversionReport) -> dict[str, dict[str, Any]] | None:
    """Return the rows of the catalogue by item id, of several rows of an item the last; None without a catalogue."""
    section = mapping.catalogue
    if section is None:
        return None
    path = folder / section.file
    if not path.exists():
        raise InputError(f"catalogue.file: {path} does not exist")
    key = Expression("catalogue.key", section.key)
    found: dict[str, dict[str, Any]] = {}
    for row in read_rows(path, section.format, section.delimiter):
        if isinstance(row.value, Unmappable):
            report.skip(f"catalogue_{row.value.reason}", row.place, row.value.detail)
            continue
        try:
            found[to_id("key", key(row.value))] = row.value
        except Unmappable as error:
            report.skip(f"catalogue_{error.reason}", row.place, error.detail)
    return found


def _decoded(fragments: Iterable[tuple[Any, bytes]]) -> Iterator[tuple[Any, Any]]:
    for key, payload in fragments:
        yield key, _decode(payload)
