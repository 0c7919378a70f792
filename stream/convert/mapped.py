"""Applies a mapping to rows."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import jmespath.exceptions
import msgspec

from prectr.state.errors import ConfigError, InputError
from prectr.stream.convert.event_log import EventLog
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.mapping import ClickSection, Expression, ItemsSection, MappingFile, expressions, zone_of
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row, read_rows
from prectr.stream.convert.times import to_millis
from prectr.stream.convert.values import is_true, to_id, to_number, to_optional_id, to_text, to_whole

MAX_ITEMS: Final = 200
_TITLE_CHARACTERS: Final = 2000
_LABEL_CHARACTERS: Final = 256
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class MappedRows:
    """Turns rows into events. Pages whose items come a row each are gathered in `fragments` until `finish`."""

    def __init__(
        self, mapping: MappingFile, folder: Path, log: EventLog, fragments: ExternalSorter, report: ConversionReport
    ) -> None:
        """`folder`: where a relative catalogue file is looked for. Raises ConfigError and InputError."""
        self._mapping = mapping
        self._log = log
        self._fragments = fragments
        self._report = report
        self._zone = zone_of(mapping)
        self._catalogue = _read_catalogue(mapping, folder, report)
        self._page = _PageMapping(mapping) if mapping.page is not None else None
        self._clicks = [_ClickMapping(number, click) for number, click in enumerate(mapping.click)]

    def add(self, row: Row) -> None:
        """Convert one row; what cannot be mapped of it is counted by reason."""
        self._report.rows += 1
        if isinstance(row.value, Unmappable):
            self._report.skip(row.value.reason, row.place, row.value.detail)
            return
        if self._page is not None:
            self._attempt(row, self._add_page)
        for click in self._clicks:
            self._attempt(row, lambda value, place, click=click: self._add_clicks(click, value, place))

    def finish(self) -> None:
        """Put the pages together whose items came a row each."""
        for page, place in _gathered(self._fragments):
            if len(page["items"]) > MAX_ITEMS:
                self._report.skip("too_many_items", place, f"{len(page['items'])} items, of at most {MAX_ITEMS}")
            else:
                self._log.add(page, place)

    def _attempt(self, row: Row, convert: Any) -> None:
        try:
            convert(row.value, row.place)
        except Unmappable as error:
            self._report.skip(error.reason, row.place, error.detail)
        except jmespath.exceptions.JMESPathError as error:
            self._report.skip("expression_failed", row.place, str(error))

    def _add_page(self, row: dict[str, Any], place: str) -> None:
        page = self._page
        assert page is not None
        if page.when is not None and not is_true(page.when(row)):
            return
        event: dict[str, Any] = {"type": "impression", **self._head(page.fields, row)}
        query = to_text("query", _value(page.fields, "query", row), _TITLE_CHARACTERS)
        event["query"] = query if query is not None else ""
        for name, found in (("context", _texts(page.context, row)), ("features", _features(page.features, row))):
            if found:
                event[name] = found
        if page.each is None:
            item = self._item(page, {"item": row, "row": row, "index": 0, "catalogue": None}, place)
            key = (event.get("user_id") or event.get("session_id") or "", event["request_id"])
            self._fragments.add(key, _encode((event, item, place)))
            return
        elements = page.each(row)
        if not elements:
            self._report.empty_pages += 1
            return
        if not isinstance(elements, list):
            raise Unmappable("items_not_an_array", f"{page.each.name} gives {elements!r}"[:200])
        if len(elements) > MAX_ITEMS:
            raise Unmappable("too_many_items", f"{len(elements)} items, of at most {MAX_ITEMS}")
        event["items"] = [
            self._item(page, {"item": element, "row": row, "index": index, "catalogue": None}, place)
            for index, element in enumerate(elements)
        ]
        self._log.add(event, place)

    def _add_clicks(self, click: "_ClickMapping", row: dict[str, Any], place: str) -> None:
        if click.each is None:
            if click.when is None or is_true(click.when(row)):
                self._add_click(click, row, place)
            return
        elements = click.each(row)
        if elements is None:
            return
        if not isinstance(elements, list):
            elements = [elements]
        for index, element in enumerate(elements):
            scope = {"item": element, "row": row, "index": index, "catalogue": None}
            if click.when is None or is_true(click.when(scope)):
                self._add_click(click, scope, place)

    def _add_click(self, click: "_ClickMapping", scope: dict[str, Any], place: str) -> None:
        event = {"type": "click", **self._head(click.fields, scope)}
        event["item_id"] = to_id("item_id", click.fields["item_id"](scope))
        action = to_text("action", _value(click.fields, "action", scope), _LABEL_CHARACTERS)
        if action:
            event["action"] = action
        self._log.add(event, place)

    def _head(self, fields: dict[str, Expression], scope: dict[str, Any]) -> dict[str, Any]:
        """What pages and clicks have in common."""
        head: dict[str, Any] = {"request_id": to_id("request_id", fields["request_id"](scope))}
        user = to_optional_id("user_id", _value(fields, "user_id", scope))
        session = to_optional_id("session_id", _value(fields, "session_id", scope))
        if user is None and session is None:
            raise Unmappable("missing_user_id", "neither user_id nor session_id has a value")
        if user is not None:
            head["user_id"] = user
        if session is not None:
            head["session_id"] = session
        head["ts"] = to_millis(fields["ts"](scope), self._mapping.time.unit, self._zone)
        return head

    def _item(self, page: "_PageMapping", scope: dict[str, Any], place: str) -> dict[str, Any]:
        fields = page.item_fields
        item_id = to_id("item_id", fields["item_id"](scope))
        if self._catalogue:
            scope["catalogue"] = self._catalogue.get(item_id)
            if scope["catalogue"] is None:
                self._report.skip("item_not_in_catalogue", place, f"item {item_id!r}")
        item: dict[str, Any] = {"item_id": item_id}
        conversions = {
            "title": lambda value: to_text("title", value, _TITLE_CHARACTERS),
            "relevance": lambda value: to_whole("relevance", value, 1, 4),
            "price": lambda value: to_number("price", value),
            "category": lambda value: to_text("category", value, _LABEL_CHARACTERS),
            "brand": lambda value: to_text("brand", value, _LABEL_CHARACTERS),
            "position": lambda value: to_whole("position", value, 1, 1_000_000),
        }
        for name, convert in conversions.items():
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


class _PageMapping:
    """The expressions of `[page]`."""

    def __init__(self, mapping: MappingFile) -> None:
        page = mapping.page
        assert page is not None
        head = {name: getattr(page, name) for name in ("request_id", "user_id", "session_id", "query", "ts")}
        self.fields = expressions("page", head)
        _check_user("page", self.fields)
        self.when = Expression("page.when", page.when) if page.when is not None else None
        self.context = expressions("page.context", dict(page.context))
        self.features = expressions("page.features", dict(page.features))
        self.each = Expression("page.items.each", page.items.each) if page.items.each is not None else None
        names = [name for name in ItemsSection.__struct_fields__ if name not in ("each", "features")]
        self.item_fields = expressions("page.items", {name: getattr(page.items, name) for name in names})
        self.item_features = expressions("page.items.features", dict(page.items.features))


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
    found = {name: to_text(name, expression(scope), _LABEL_CHARACTERS) for name, expression in fields.items()}
    return {name: text for name, text in found.items() if text}


def _features(fields: dict[str, Expression], scope: Any) -> dict[str, float | str]:
    """Numbers and short texts by name; what is missing, or neither, is left out."""
    found: dict[str, float | str] = {}
    for name, expression in fields.items():
        value = expression(scope)
        if isinstance(value, bool):
            found[name] = float(value)
        elif isinstance(value, int | float) and math.isfinite(value):
            found[name] = value
        elif isinstance(value, str) and value:
            found[name] = value[:_LABEL_CHARACTERS]
    return found


def _read_catalogue(mapping: MappingFile, folder: Path, report: ConversionReport) -> dict[str, dict[str, Any]]:
    """Rows of the catalogue by item id; of several rows of an item the last."""
    section = mapping.catalogue
    if section is None:
        return {}
    path = Path(section.file)
    path = path if path.is_absolute() else folder / path
    if not path.exists():
        raise InputError(f"catalogue.file: {path} does not exist")
    key = Expression("catalogue.key", section.key)
    found: dict[str, dict[str, Any]] = {}
    for row in read_rows(path, section.format, section.delimiter):  # type: ignore[arg-type]
        if isinstance(row.value, Unmappable):
            report.skip(f"catalogue_{row.value.reason}", row.place, row.value.detail)
            continue
        try:
            found[to_id("key", key(row.value))] = row.value
        except Unmappable as error:
            report.skip("catalogue_without_key", row.place, error.detail)
    return found


def _gathered(fragments: ExternalSorter) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield pages put together from their rows, and the place of each page's first row."""
    page: dict[str, Any] | None = None
    current: Any = None
    place = ""
    for key, payload in _decoded(fragments):
        event, item, row_place = payload
        if key != current or page is None:
            if page is not None:
                yield page, place
            page, place, current = {**event, "items": []}, row_place, key
        page["ts"] = min(page["ts"], event["ts"])
        page["items"].append(item)
    if page is not None:
        yield page, place


def _decoded(fragments: Iterable[tuple[Any, bytes]]) -> Iterator[tuple[Any, Any]]:
    for key, payload in fragments:
        yield key, _decode(payload)
