"""Proposes a mapping for files that nobody has described: columns are recognised by their names and values."""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from prectr.state.errors import InputError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.rows import read_rows
from prectr.stream.convert.times import to_millis

SAMPLE_ROWS: Final = 500
_SEPARATORS: Final = "|;,"
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "request_id": (
        "request_id",
        "search_id",
        "query_id",
        "page_id",
        "impression_id",
        "serp_id",
        "search_uuid",
        "list_id",
        "ranking_id",
        "ranking",
        "srch_id",
        "page_view_id",
    ),
    "user_id": (
        "user_id",
        "user",
        "customer_id",
        "customer",
        "visitor_id",
        "visitor",
        "client_id",
        "member_id",
        "account_id",
        "uid",
        "profile_id",
        "cookie_id",
        "cookie",
        "device_id",
        "person_id",
    ),
    "session_id": ("session_id", "session", "sid", "visit_id"),
    "query": (
        "query",
        "search_query",
        "user_query",
        "search_term",
        "searchterm",
        "search_text",
        "keyword",
        "keywords",
        "q",
        "term",
        "search",
        "phrase",
    ),
    "ts": (
        "ts",
        "timestamp",
        "event_time",
        "time",
        "datetime",
        "event_timestamp",
        "created_at",
        "date_time",
        "searched_at",
        "shown_at",
        "date",
        "when",
    ),
    "items": (
        "items",
        "results",
        "products",
        "item_ids",
        "shown_items",
        "shown",
        "product_ids",
        "result_ids",
        "impressions",
        "hits",
        "docs",
        "documents",
        "list",
        "slate",
        "candidates",
        "displayed",
        "skus",
    ),
    "item_id": (
        "item_id",
        "product_id",
        "sku",
        "asin",
        "doc_id",
        "object_id",
        "article_id",
        "item",
        "product",
        "listing_id",
        "offer_id",
        "document_id",
        "id",
        "clicked_item",
    ),
    "clicked": (
        "clicked",
        "is_clicked",
        "click",
        "is_click",
        "clicks",
        "clicked_item",
        "clicked_items",
        "clicked_item_id",
        "clicked_item_ids",
        "clicked_ids",
        "clicked_id",
        "clicked_product",
        "clicked_products",
        "clicked_product_id",
        "clicked_sku",
        "click_item",
        "click_item_id",
        "label",
    ),
    "click_ts": ("click_ts", "click_time", "clicked_at", "click_timestamp"),
    "event": ("event", "event_type", "type", "action", "action_name", "event_name", "action_type"),
    "position": ("position", "rank", "pos", "ordinal", "slot", "item_position"),
    "title": ("title", "name", "product_name", "product_title", "item_title", "description", "label"),
    "price": ("price", "sale_price", "unit_price", "price_eur", "price_usd", "amount"),
    "category": ("category", "category_name", "department", "cat", "genre", "product_type"),
    "brand": ("brand", "manufacturer", "vendor", "brand_name", "maker"),
    "relevance": ("relevance", "relevance_level", "grade"),
}
_ITEM_FIELDS: Final = ("title", "relevance", "price", "category", "brand", "position")
_CLICK_WORDS: Final = ("click", "item_click", "product_click", "select_item", "open", "tap")
_PAGE_WORDS: Final = (
    "impression",
    "search",
    "view",
    "page",
    "ranking",
    "view_search_results",
    "search_results",
    "serp",
)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Draft(msgspec.Struct):
    """A proposed mapping file. unsure: what a person has to look at, also written into `text` as comments."""

    text: str
    unsure: list[str]


class _Column(msgspec.Struct):
    """A column of the sample. values: those that are not empty. array: the expression that makes a list of it."""

    name: str
    values: list[Any]
    array: str | None
    elements: list[Any]


def draft_mapping(inputs: Sequence[Path], catalogue: Path | None = None) -> Draft:
    """Look at the first rows of a file and propose a mapping for it.

    Args:
        inputs: files of one kind; the first is looked at.
        catalogue: a file with one row an item, whose title, price and so on belong to the items shown.

    Raises:
        InputError: the file has no row that can be read, or nothing in it looks like the items of a page.
    """
    rows = _sample(inputs[0])
    if not rows:
        raise InputError(f"{inputs[0]}: no row of it can be read")
    columns = _columns(rows)
    draft = _Draft(inputs, columns, _columns(_sample(catalogue)) if catalogue is not None else {}, catalogue, rows)
    return draft.build()


def _sample(path: Path) -> list[dict[str, Any]]:
    rows = (row.value for row in read_rows(path) if not isinstance(row.value, Unmappable))
    return list(islice(rows, SAMPLE_ROWS))


class _Draft:
    """Chooses columns and writes them down, each once."""

    def __init__(
        self,
        inputs: Sequence[Path],
        columns: dict[str, _Column],
        catalogue_columns: dict[str, _Column],
        catalogue: Path | None,
        rows: list[dict[str, Any]],
    ) -> None:
        self._inputs = inputs
        self._columns = columns
        self._catalogue_columns = catalogue_columns
        self._catalogue = catalogue
        self._rows = rows
        self._used: set[str] = set()
        self._unsure: list[str] = []

    def build(self) -> Draft:
        """Return the whole file."""
        event = self._event_column()
        items = self._items_column()
        head = self._head()
        sections = [self._time_section(head["ts"])]
        if items is not None:
            sections.append(self._array_page(head, items))
            sections.append(self._array_clicks(head, items))
        elif event is not None:
            sections += self._event_sections(head, event)
        else:
            sections += self._row_sections(head)
        sections.append(self._catalogue_section())
        unused = [name for name in self._columns if name not in self._used]
        top = [
            f"# A mapping of {self._inputs[0].name} to events, proposed from its first {len(self._rows)} rows.",
            "# Values are JMESPath expressions (https://jmespath.org) over one row; see prectr convert --help.",
            *(f"# LOOK: {each}" for each in self._unsure),
        ]
        if unused:
            top.append(f"# Columns not used: {', '.join(unused)}")
        return Draft("\n\n".join(["\n".join(top), *filter(None, sections)]) + "\n", self._unsure)

    def _head(self) -> dict[str, str]:
        head = {name: self._expression(name) for name in ("request_id", "user_id", "session_id", "query", "ts")}
        found = {name: text for name, text in head.items() if text is not None}
        if "ts" not in found:
            raise InputError(f"{self._inputs[0]}: no column looks like a time, among {', '.join(self._columns)}")
        if "user_id" not in found and "session_id" not in found:
            self._unsure.append("no column looks like a user or a session; clicks are joined to pages by it")
            found["user_id"] = "'everyone'"
        if "request_id" not in found:
            user = found.get("user_id") or found["session_id"]
            self._unsure.append("no column identifies a result page; made of user and time")
            found["request_id"] = f"join('-', [to_string({user}), to_string({found['ts']})])"
        if "query" not in found:
            self._unsure.append("no column looks like a query; pages count as browsing")
        return found

    def _time_section(self, ts: str) -> str:
        column = next(each for each in self._columns.values() if _reference(each.name) == ts)
        try:
            to_millis(column.values[0] if column.values else None, "auto", None)
        except Unmappable as error:
            if error.reason == "time_without_zone":
                self._unsure.append("times have no zone; UTC is assumed")
                return '[time]\nzone = "UTC"'
            self._unsure.append(f"{column.name} may be no time: {error.detail}")
        return ""

    def _array_page(self, head: dict[str, str], items: _Column) -> str:
        lines = ["[page]", *_assignments(head), "", "[page.items]", f"each = {_quoted(items.array or '')}"]
        element = next((each for each in items.elements if each is not None), None)
        if isinstance(element, dict):
            keys = _columns([each for each in items.elements if isinstance(each, dict)])
            fields = {}
            for name in ("item_id", *_ITEM_FIELDS):
                found = _best(name, keys)
                if found is not None:
                    fields[name] = f"item.{_reference(found.name)}"
            if "item_id" not in fields:
                self._unsure.append(f"no field of the elements of {items.name} looks like an id: {', '.join(keys)}")
                fields["item_id"] = f"item.{_reference(next(iter(keys)))}"
        else:
            fields = {"item_id": "item"}
            for name in _ITEM_FIELDS:
                parallel = self._parallel(name, items)
                if parallel is not None:
                    fields[name] = f"at({_in_row(parallel.array or '', self._columns)}, index)"
        fields |= self._catalogue_fields(fields)
        return "\n".join([*lines, *_assignments(fields)])

    def _array_clicks(self, head: dict[str, str], items: _Column) -> str:
        element = next((each for each in items.elements if each is not None), None)
        fields = {
            name: _in_row(head[name], self._columns)
            for name in ("request_id", "user_id", "session_id", "ts")
            if name in head
        }
        if isinstance(element, dict):
            keys = _columns([each for each in items.elements if isinstance(each, dict)])
            clicked = _best("clicked", keys)
            item_id = _best("item_id", keys)
            if clicked is not None and item_id is not None:
                click_ts = _best("click_ts", keys)
                if click_ts is not None:
                    fields["ts"] = f"item.{_reference(click_ts.name)}"
                fields |= {"each": items.array or "", "when": f"item.{_reference(clicked.name)}"}
                fields["item_id"] = f"item.{_reference(item_id.name)}"
                return "\n".join(["[[click]]", *_assignments(fields)])
        column = self._column("clicked")
        if column is None:
            self._unsure.append("no column looks like clicks; if they are in another file, add a [[click]] for it")
            return ""
        flags = column.array is not None and all(_is_flag(each) for each in column.elements)
        click_ts = self._column("click_ts")
        if flags:
            clicked_expression = _in_row(column.array or "", self._columns)
            fields |= {"each": items.array or "", "when": f"at({clicked_expression}, index)", "item_id": "item"}
        elif column.array is not None:
            fields |= {"each": column.array, "item_id": "item"}
        else:
            fields = _click_head(head)
            fields |= {"when": _reference(column.name), "item_id": _reference(column.name)}
        if click_ts is not None:
            fields["ts"] = (
                _reference(click_ts.name)
                if "each" not in fields
                else f"at({_in_row(click_ts.array, self._columns)}, index)"
                if click_ts.array is not None
                else _in_row(_reference(click_ts.name), self._columns)
            )
        return "\n".join(["[[click]]", *_assignments(fields)])

    def _event_sections(self, head: dict[str, str], event: _Column) -> list[str]:
        """Rows of pages and rows of clicks in one file, told by a column."""
        values = list(dict.fromkeys(str(each) for each in event.values))
        clicks = [each for each in values if each.lower() in _CLICK_WORDS]
        pages = [each for each in values if each.lower() in _PAGE_WORDS]
        reference = _reference(event.name)
        item = self._column("item_id")
        if item is None:
            raise InputError(f"{self._inputs[0]}: no column looks like the items of a page or an item's id")
        fields = {"item_id": f"item.{_reference(item.name)}"}
        for name in _ITEM_FIELDS:
            found = self._column(name)
            if found is not None:
                fields[name] = f"item.{_reference(found.name)}"
        fields |= self._catalogue_fields(fields)
        page = {**head, "when": _one_of(reference, pages)}
        click = _click_head(head)
        click |= {"when": _one_of(reference, clicks), "item_id": _reference(item.name)}
        self._unsure.append("a row is one item of its page; rows with the same request_id and user are one page")
        return [
            "\n".join(["[page]", *_assignments(page), "", "[page.items]", *_assignments(fields)]),
            "\n".join(["[[click]]", *_assignments(click)]),
        ]

    def _row_sections(self, head: dict[str, str]) -> list[str]:
        """One row an item shown, with a flag for its click."""
        item = self._column("item_id")
        if item is None:
            raise InputError(f"{self._inputs[0]}: no column looks like the items of a page or an item's id")
        fields = {"item_id": f"item.{_reference(item.name)}"}
        for name in _ITEM_FIELDS:
            found = self._column(name)
            if found is not None:
                fields[name] = f"item.{_reference(found.name)}"
        fields |= self._catalogue_fields(fields)
        self._unsure.append("a row is one item of its page; rows with the same request_id and user are one page")
        sections = ["\n".join(["[page]", *_assignments(head), "", "[page.items]", *_assignments(fields)])]
        clicked = self._column("clicked")
        if clicked is None:
            self._unsure.append("no column looks like clicks; if they are in another file, add a [[click]] for it")
            return sections
        click = _click_head(head)
        click_ts = self._column("click_ts")
        if click_ts is not None:
            click["ts"] = _reference(click_ts.name)
        click |= {"when": _reference(clicked.name), "item_id": _reference(item.name)}
        return [*sections, "\n".join(["[[click]]", *_assignments(click)])]

    def _catalogue_fields(self, known: dict[str, str]) -> dict[str, str]:
        fields = {}
        for name in ("title", "price", "category", "brand"):
            found = _best(name, self._catalogue_columns)
            if found is not None and name not in known:
                fields[name] = f"catalogue.{_reference(found.name)}"
        return fields

    def _catalogue_section(self) -> str:
        if self._catalogue is None:
            return ""
        key = _best("item_id", self._catalogue_columns)
        if key is None:
            self._unsure.append(f"no column of {self._catalogue.name} looks like an item's id")
            return ""
        return "\n".join(
            [
                "[catalogue]",
                f"file = {_quoted(str(self._catalogue.resolve()))}",
                f"key = {_quoted(_reference(key.name))}",
            ]
        )

    def _event_column(self) -> _Column | None:
        column = _best("event", self._columns)
        if column is None:
            return None
        values = {str(each).lower() for each in column.values}
        if values & set(_CLICK_WORDS) and values & set(_PAGE_WORDS):
            self._used.add(column.name)
            return column
        return None

    def _items_column(self) -> _Column | None:
        arrays = {name: each for name, each in self._columns.items() if each.array is not None}
        found = _best("items", arrays)
        if found is None:
            clicked = _best("clicked", arrays)
            others = [each for each in arrays.values() if each is not clicked]
            found = max(others, key=lambda each: len(each.elements), default=None)
        if found is not None:
            self._used.add(found.name)
        return found

    def _parallel(self, name: str, items: _Column) -> _Column | None:
        """A column of arrays as long as those of the items, by one of a field's names or its plural."""
        for column in self._columns.values():
            wanted = {*_NAMES[name], *(f"{each}s" for each in _NAMES[name])}
            if column.array is not None and column is not items and _normalised(column.name) in wanted:
                self._used.add(column.name)
                return column
        return None

    def _column(self, name: str) -> _Column | None:
        found = _best(name, {key: each for key, each in self._columns.items() if key not in self._used})
        if found is not None:
            self._used.add(found.name)
        return found

    def _expression(self, name: str) -> str | None:
        found = self._column(name)
        return None if found is None else _reference(found.name)


def _click_head(head: dict[str, str]) -> dict[str, str]:
    return {name: head[name] for name in ("request_id", "user_id", "session_id", "ts") if name in head}


def _columns(rows: Iterable[dict[str, Any]]) -> dict[str, _Column]:
    found: dict[str, _Column] = {}
    for row in rows:
        for name, value in row.items():
            column = found.setdefault(name, _Column(name, [], None, []))
            if value is not None and value != "":
                column.values.append(value)
    for column in found.values():
        column.array, column.elements = _as_array(column)
    return found


def _as_array(column: _Column) -> tuple[str | None, list[Any]]:
    """The expression that makes a list of a column's values, and the elements of all of them."""
    reference = _reference(column.name)
    values = column.values
    if values and all(isinstance(each, list) for each in values):
        return reference, [element for each in values for element in each]
    texts = [each for each in values if isinstance(each, str)]
    if not texts or len(texts) != len(values):
        return None, []
    if all(each.lstrip().startswith("[") for each in texts):
        parsed = _parsed(texts)
        return (None, []) if parsed is None else (f"parse_json({reference})", parsed)
    # Titles and queries have commas too, and blanks beside them.
    separators = () if any(" " in each.strip() for each in texts) else _SEPARATORS
    for separator in separators:
        if sum(separator in each for each in texts) * 2 > len(texts):
            parts = [part for each in texts for part in each.split(separator)]
            return f"split({reference}, '{separator}')", parts
    return None, []


def _parsed(texts: Sequence[str]) -> list[Any] | None:
    """The elements of all arrays that the texts hold as JSON; None where one is no JSON."""
    try:
        return [element for each in texts for element in json.loads(each)]
    except ValueError:
        return None


def _best(name: str, columns: dict[str, _Column]) -> _Column | None:
    by_name = {_normalised(each): column for each, column in columns.items()}
    return next((by_name[each] for each in _NAMES[name] if each in by_name), None)


def _normalised(name: str) -> str:
    """Lower case with underscores: `userId`, `User ID` and `user-id` are all `user_id`."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()


def _reference(name: str) -> str:
    return name if _PLAIN.match(name) else json.dumps(name)


def _in_row(expression: str, columns: dict[str, _Column]) -> str:
    """An expression over the row as one over a scope in which the row is `row`."""
    for name in sorted(columns, key=len, reverse=True):
        reference = re.escape(_reference(name))
        expression = re.sub(rf"(?<![\w.'\"]){reference}(?![\w'\"(])", f"row.{_reference(name)}", expression)
    return expression


def _one_of(reference: str, values: Sequence[str]) -> str:
    return " || ".join(f"{reference} == '{each}'" for each in values)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or value in (0, 1, 0.0, 1.0) or (isinstance(value, str) and value in ("0", "1"))


def _assignments(fields: dict[str, str]) -> list[str]:
    return [f"{name} = {_quoted(text)}" for name, text in fields.items()]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
