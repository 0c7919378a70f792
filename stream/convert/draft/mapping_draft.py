"""Proposes a mapping for files of unknown layout: columns are recognised by their names and values."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from prectr.state.errors import InputError
from prectr.stream.convert.draft.columns import (
    CLICK_WORDS,
    FIELD_NAMES,
    PAGE_WORDS,
    Column,
    candidates,
    columns_of,
    ids_of,
    is_flag,
    numbers_of,
    separator_of_ids,
    split_expression,
)
from prectr.stream.convert.draft.mapping_text import Fields, escaped, one_of, section
from prectr.stream.convert.draft.value_kinds import are_ids_of, are_phrases, are_times, have_no_zone, is_day, words_of
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.rows import read_rows

SAMPLE_ROWS: Final = 500
"""Rows of each input that are sampled."""
_MAX_SAMPLED_INPUTS: Final = 8
_ITEM_FIELDS: Final = ("title", "relevance", "price", "category", "brand", "position")
_CATALOGUE_FIELDS: Final = ("title", "price", "category", "brand")
_NO_CLICKS: Final = "no column looks like clicks; if they are in another file, add a [[click]] for it"

Build = Callable[[str], str]
"""Makes an expression with a prefix to its columns: "" over a row, "row." where the row is a part of the scope."""


class Draft(msgspec.Struct):
    """A proposed mapping file. unsure: what a person has to check, also written into `text` as comments."""

    text: str
    unsure: list[str]


def draft_mapping(inputs: Sequence[Path], catalogue: Path | None = None) -> Draft:
    """Propose a mapping from the first rows of some files.

    Args:
        inputs: the files of one log.
        catalogue: a file with one row for each item, with its title, price and so on.

    Raises:
        InputError: no row can be read, or no column looks like a time or like items.
    """
    rows = [row for path in inputs[:_MAX_SAMPLED_INPUTS] for row in _sample(path)]
    if not rows:
        raise InputError(f"{inputs[0]}: it has no row that can be read")
    return _Draft(inputs[0], rows, catalogue).build()


def _sample(path: Path) -> list[dict[str, Any]]:
    rows = (row.value for row in read_rows(path) if not isinstance(row.value, Unmappable))
    return list(islice(rows, SAMPLE_ROWS))


class _Draft:
    """Assigns columns to fields, each once, and writes the sections of the mapping."""

    def __init__(self, source: Path, rows: list[dict[str, Any]], catalogue: Path | None) -> None:
        self._source = source
        self._rows = len(rows)
        self._columns = columns_of(rows)
        self._catalogue = catalogue
        self._catalogue_columns = columns_of(_sample(catalogue)) if catalogue is not None else []
        self._used: set[str] = set()
        self._unsure: list[str] = []
        self._zone_missing = False

    def build(self) -> Draft:
        """Return the whole file."""
        source = _built_in_source({column.path for column in self._columns})
        if source is not None:
            self._unsure.append(f"it looks like a log of {source}: `prectr convert {source}` needs no mapping")
        event = self._event_column()
        items = self._items_column()
        time = self._time()
        head = self._head(time, items)
        sections = self._array_sections(head, items, event) if items is not None else self._row_sections(head, event)
        sections.append(self._catalogue_section())
        if self._zone_missing:
            self._unsure.append("times have no zone; UTC is assumed")
            sections.insert(0, section("time", {"zone": "UTC"}))
        unused = [column.path for column in self._columns if column.path not in self._used]
        top = [
            f"A mapping of {self._source.name} to events, proposed from the first {self._rows} rows.",
            "Values are JMESPath expressions (https://jmespath.org) over one row; docs/convert.md explains them.",
            *(f"LOOK: {each}" for each in self._unsure),
            *([f"Columns not used: {', '.join(unused)}"] if unused else []),
        ]
        comment = "\n".join(f"# {escaped(line)}" for line in top)
        return Draft("\n\n".join([comment, *filter(None, sections)]) + "\n", self._unsure)

    # Columns of the sample

    def _free(self, field: str) -> list[Column]:
        return [column for column in candidates(field, self._columns) if column.path not in self._used]

    def _use(self, column: Column) -> Column:
        self._used.add(column.path)
        return column

    def _scalar(self, field: str) -> Column | None:
        found = next((column for column in self._free(field) if not column.is_list), None)
        return None if found is None else self._use(found)

    def _unnamed(self, fits: Callable[[Column], bool], meaning: str) -> Column | None:
        """Return the first column whose name says nothing and whose values fit, and note that they alone do."""
        known = {id(column) for field in FIELD_NAMES for column in candidates(field, self._columns)}
        for column in self._columns:
            if column.path not in self._used and id(column) not in known and column.values and fits(column):
                self._unsure.append(f"{column.path} is taken as {meaning} for its values; its name says nothing")
                return column
        return None

    def _event_column(self) -> Column | None:
        for column in candidates("event", self._columns):
            words = words_of(column)
            if words & CLICK_WORDS and words & PAGE_WORDS:
                return self._use(column)
        return None

    def _items_column(self) -> Column | None:
        arrays = [column for column in self._columns if column.array is not None]
        named = candidates("items", arrays)
        if named:
            return self._use(named[0])
        if any(column.array is None for column in candidates("item_id", self._columns)):
            return None
        known = {column.path for field in FIELD_NAMES for column in candidates(field, arrays)}
        others = [column for column in arrays if column.path not in known]
        found = max(others, key=lambda column: len(column.elements), default=None)
        return None if found is None else self._use(found)

    # Fields of both pages and clicks

    def _time(self) -> Build:
        """Choose the column of times, or one of dates and one of times of day."""
        named = [column for column in candidates("ts", self._columns) if column.array is None]
        of_clicks = {column.path for column in candidates("click_ts", self._columns)}
        others = [
            column
            for column in self._columns
            if column not in named and column.path not in of_clicks and ("time" in column.key or "date" in column.key)
        ]
        of_times = [column for column in [*named, *others] if are_times(column.values)]
        exact = next((column for column in of_times if not all(map(is_day, column.values))), None)
        days = next((column for column in of_times if all(map(is_day, column.values))), None)
        hours = next((column for column in named if column.key == "time"), None)
        if exact is None and days is not None and hours is not None:
            moments = [f"{day}T{hour}" for day, hour in zip(days.values, hours.values, strict=False)]
            if are_times(moments):
                self._zone_missing = have_no_zone(moments)
                day, hour = self._use(days).path, self._use(hours).path
                return lambda prefix: f"join('T', [to_string({prefix}{day}), to_string({prefix}{hour})])"
        column = exact or days
        if column is not None:
            self._zone_missing = have_no_zone(column.values)
            return _path(self._use(column))
        if column is None and not named:
            column = self._unnamed(lambda column: column.array is None and are_times(column.values), "a time")
            if column is not None:
                self._zone_missing = have_no_zone(column.values)
                return _path(self._use(column))
        if named and named[0].values:
            example = str(named[0].values[0])[:60]
            raise InputError(f"{self._source}: {named[0].path} is {example!r}, neither a number nor ISO 8601")
        names = ", ".join(column.path for column in self._columns)
        raise InputError(f"{self._source}: no column looks like a time, among {names}")

    def _head(self, time: Build, items: Column | None) -> dict[str, Build]:
        fields = ("request_id", "user_id", "session_id", "query")
        found = {field: self._scalar(field) for field in fields}
        if found["query"] is None:
            query = self._unnamed(are_phrases, "the query")
            found["query"] = None if query is None else self._use(query)
        head = {field: _path(column) for field, column in found.items() if column is not None}
        if "request_id" not in head and items is not None:
            row_id = next((column for column in self._columns if column.key == "id"), None)
            if row_id is not None and len({str(each) for each in row_id.values}) == self._rows:
                head["request_id"] = _path(self._use(row_id))
        if "user_id" not in head and "session_id" not in head:
            self._unsure.append("no column looks like a user or a session; clicks are joined to pages by it")
            head["user_id"] = lambda _prefix: "'everyone'"
        if "request_id" not in head:
            user = head.get("user_id") or head["session_id"]
            self._unsure.append("no column identifies a result page; the id is made of user and time")
            head["request_id"] = lambda at: f"join('-', [to_string({user(at)}), to_string({time(at)})])"
        if "query" not in head:
            self._unsure.append("no column looks like a query; the pages count as browsing")
        return {**{field: head[field] for field in fields if field in head}, "ts": time}

    # One array of items to a row

    def _array_sections(self, head: dict[str, Build], items: Column, event: Column | None) -> list[str]:
        page = {field: build("") for field, build in head.items()}
        keys = columns_of(each for each in items.elements if isinstance(each, dict))
        fields = self._array_items(items, keys)
        clicks = self._array_clicks(head, items, keys, fields["item_id"])
        if event is not None:
            page["when"] = one_of(event, PAGE_WORDS)
        if clicks is None:
            clicks = self._click_rows(head, items, fields["item_id"], event)
            if clicks is not None and event is None:
                page["when"] = items.path
        sections = [section("page", page), section("page.items", {"each": items.list_expression(), **fields})]
        if clicks is None:
            self._unsure.append(_NO_CLICKS)
            return sections
        return [*sections, section("[click]", clicks)]

    def _array_items(self, items: Column, keys: list[Column]) -> Fields:
        """Return the fields of the elements of an array; `keys`: those of the elements, where they are objects."""
        if keys:
            fields = self._item_fields(keys, set())
            if "item_id" not in fields:
                names = ", ".join(key.path for key in keys)
                self._unsure.append(f"no field of the elements of {items.path} looks like an id: {names}")
                fields = {"item_id": f"item.{keys[0].path}", **fields}
        else:
            fields = {"item_id": "item"}
            for field in _ITEM_FIELDS:
                parallel = next((column for column in self._columns if self._is_parallel(column, field)), None)
                if parallel is not None:
                    element = f"at({self._use(parallel).list_expression('row.')}, index)"
                    fields |= self._item_field(field, element, parallel.key, parallel.elements)
        return {**fields, **self._catalogue_fields(fields)}

    def _is_parallel(self, column: Column, field: str) -> bool:
        names = FIELD_NAMES[field]
        is_named = (
            column.key in names or column.key.removesuffix("s") in names or column.key.removeprefix("item_") in names
        )
        return column.array is not None and column.path not in self._used and is_named

    def _array_clicks(self, head: dict[str, Build], items: Column, keys: list[Column], item_id: str) -> Fields | None:
        """Return the clicks that the row of a page has itself; None where it has none."""
        in_scope = {field: build("row.") for field, build in head.items() if field != "query"}
        flags = candidates("clicked", keys)
        if flags:
            times = candidates("click_ts", keys)
            ts = {"ts": f"item.{times[0].path}"} if times else {}
            return {
                **in_scope,
                **ts,
                "each": items.list_expression(),
                "when": f"item.{flags[0].path}",
                "item_id": item_id,
            }
        ids = next((key.values for key in keys if f"item.{key.path}" == item_id), items.elements)
        known = ids_of(ids)
        named = self._free("clicked")
        unnamed = None if named else self._unnamed(lambda column: are_ids_of(column, known), "the clicked item")
        for column in named or ([] if unnamed is None else [unnamed]):
            clicks = self._clicks_of(column, items, item_id, known)
            if clicks is not None:
                self._use(column)
                over_row = {field: build("") for field, build in head.items() if field != "query"}
                fields = in_scope if "each" in clicks else over_row
                return {**fields, **self._click_time(fields["ts"], "each" in clicks), **clicks}
        return self._clicks_by_position(head, items, item_id)

    def _clicks_of(self, column: Column, items: Column, item_id: str, known: set[str]) -> Fields | None:
        """Return how a column of clicks is read, or None where it is none; `known`: ids of items on pages."""
        values = column.values if column.array is None else column.elements
        clicked = ids_of(values)
        objects = columns_of(each for each in column.elements if isinstance(each, dict))
        if objects:
            item_ids = candidates("item_id", objects)
            times = candidates("click_ts", objects) or candidates("ts", objects)
            ts = {"ts": f"item.{times[0].path}"} if times else {}
            kind = next((each for each in candidates("event", objects) if words_of(each) & CLICK_WORDS), None)
            only = {} if kind is None else {"when": one_of(kind, CLICK_WORDS, "item.")}
            clicks = {"each": column.list_expression(), **ts, **only}
            return {**clicks, "item_id": f"item.{item_ids[0].path}"} if item_ids else None
        if all(map(is_flag, values)) and not clicked <= known:
            when = f"at({column.list_expression('row.')}, index)"
            flags = {"each": items.list_expression(), "when": when, "item_id": item_id}
            return flags if column.array is not None else None
        separator = separator_of_ids(column.values, known)
        if column.array is None and separator is not None:
            return {"each": split_expression(column.path, separator), "item_id": "item"}
        if clicked and clicked.isdisjoint(known) and clicked.isdisjoint(f"{each}.0" for each in known):
            return None
        if column.array is not None:
            return {"each": column.list_expression(), "item_id": "item"}
        # Data frames make floats of whole numbers with gaps.
        are_floats = bool(clicked) and clicked.isdisjoint(known)
        return {"when": column.path, "item_id": f"to_number({column.path})" if are_floats else column.path}

    def _clicks_by_position(self, head: dict[str, Build], items: Column, item_id: str) -> Fields | None:
        column = next((column for column in self._free("click_position") if column.array is None), None)
        if column is None:
            return None
        index = f"to_number({self._use(column).path})"
        lowest = 0 if 0 in numbers_of(column.values) else 1
        self._unsure.append(f"{column.path} is taken as the position of the clicked item, from {lowest}")
        clicked = f"at({items.list_expression()}, {index if lowest == 0 else f'sum([{index}, `-1`])'})"
        fields = {field: build("") for field, build in head.items() if field != "query"}
        clicks = {"when": f"{index} >= `{lowest}`", "item_id": clicked + item_id.removeprefix("item")}
        return {**fields, **self._click_time(fields["ts"]), **clicks}

    def _click_time(self, page_ts: str, index_of_each: bool = False) -> Fields:
        """Return the time of clicks where a column has it; a click without one takes the time of its page.

        index_of_each: whether a list of times is parallel to the array of the clicks; the expressions are then over
        the scope of an element.
        """
        column = next(iter(self._free("click_ts")), None)
        if column is None:
            return {}
        prefix = "row." if index_of_each else ""
        ts = self._use(column).list_expression(prefix)
        if column.array is not None:
            ts = f"at({ts}, {'index' if index_of_each else '`0`'})"
        return {"ts": f"{ts} || {page_ts}"}

    def _click_rows(self, head: dict[str, Build], items: Column, item_id: str, event: Column | None) -> Fields | None:
        """Return clicks that are rows of their own, beside rows of pages with arrays."""
        column = self._scalar("item_id")
        if column is None and event is not None:
            # The clicked items are in the same array as those of a page.
            click = {field: build("row.") for field, build in head.items() if field != "query"}
            clicked = {"each": items.list_expression(), "when": one_of(event, CLICK_WORDS, "row.")}
            return {**click, **clicked, "item_id": item_id}
        if column is None:
            return None
        click = {field: build("") for field, build in head.items() if field != "query"}
        click |= self._click_time(click["ts"])
        when = one_of(event, CLICK_WORDS) if event is not None else f"{column.path} && !{items.path}"
        return {**click, "when": when, "item_id": column.path}

    # One item to a row

    def _row_sections(self, head: dict[str, Build], event: Column | None) -> list[str]:
        free = [column for column in self._columns if column.path not in self._used]
        fields = self._item_fields(free, self._used)
        if "item_id" not in fields:
            raise InputError(f"{self._source}: no column looks like the items of a page or an item's id")
        fields |= self._catalogue_fields(fields)
        page = {field: build("") for field, build in head.items()}
        click = {field: text for field, text in page.items() if field != "query"}
        item_id = fields["item_id"].removeprefix("item.")
        if event is not None:
            page["when"] = one_of(event, PAGE_WORDS)
            click |= {"when": one_of(event, CLICK_WORDS), "item_id": item_id}
        else:
            click |= {"when": self._row_clicked(item_id), "item_id": item_id}
        click |= self._click_time(click["ts"])
        self._unsure.append("a row is one item of its page; rows with the same request_id and user are one page")
        sections = [section("page", page), section("page.items", fields)]
        if not click["when"]:
            self._unsure.append(_NO_CLICKS)
            return sections
        return [*sections, section("[click]", click)]

    def _row_clicked(self, item_id: str) -> str:
        """Return the condition for a click on the item of a row; empty where no column looks like one."""
        known = ids_of(next(column.values for column in self._columns if column.path == item_id))
        for column in self._free("clicked"):
            if len(numbers_of(column.values)) == len(column.values) or all(map(is_flag, column.values)):
                return self._use(column).path
            if ids_of(column.values) & known:
                return f"{self._use(column).path} == {item_id}"
        return ""

    # Fields of items

    def _item_fields(self, columns: Sequence[Column], used: set[str]) -> Fields:
        """Return the fields of items that columns have, each used once; their paths are added to `used`."""
        fields: Fields = {}
        for field in ("item_id", *_ITEM_FIELDS):
            column = next((each for each in candidates(field, columns) if each.path not in used), None)
            if column is None or (field == "item_id" and column.is_list):
                continue
            first = "[0]" if column.array == "list" else ""
            found = self._item_field(field, f"item.{column.path}{first}", column.key, column.values)
            if found:
                used.add(column.path)
                fields |= found
        return fields

    def _item_field(self, field: str, expression: str, key: str, values: Sequence[Any]) -> Fields:
        """Return the expression of a field in the unit of events; nothing where its values do not fit."""
        numbers = numbers_of(values)
        if field == "position" and 0 in numbers:
            return {field: f"sum([to_number({expression}), `1`])"}
        if field == "price" and "cents" in key:
            return {field: f"times({expression}, `0.01`)"}
        if field == "relevance" and numbers:
            if not set(numbers) <= {0, 1, 2, 3, 4} or {0, 4} <= set(numbers):
                self._unsure.append(f"{key} is left out: it is not a level from 1 to 4")
                return {}
            if 0 in numbers:
                self._unsure.append(f"{key} counts from 0; relevance levels count from 1 (irrelevant) to 4")
                return {field: f"sum([to_number({expression}), `1`])"}
        return {field: expression}

    def _catalogue_fields(self, known: Fields) -> Fields:
        if self._catalogue is None:
            return {}
        fields: Fields = {}
        key = candidates("item_id", self._catalogue_columns)
        for field in _CATALOGUE_FIELDS:
            column = next((each for each in candidates(field, self._catalogue_columns) if each not in key[:1]), None)
            if column is not None and field not in known:
                first = "[0]" if column.array == "list" else ""
                fields |= self._item_field(field, f"catalogue.{column.path}{first}", column.key, column.values)
        return fields

    def _catalogue_section(self) -> str:
        if self._catalogue is None:
            return ""
        keys = candidates("item_id", self._catalogue_columns)
        if not keys:
            raise InputError(f"{self._catalogue}: no column looks like an item's id")
        return section("catalogue", {"file": str(self._catalogue.resolve()), "key": keys[0].path})


def _built_in_source(paths: set[str]) -> str | None:
    """Return the source whose documents have these fields; None where a mapping is needed."""
    if {"query_id", "timestamp"} <= paths and any(path in paths for path in ("action_name", "query_response_id")):
        return "ubi"
    return "metarank" if {"event", "timestamp", "fields"} <= paths else None


def _path(column: Column) -> Build:
    return lambda prefix: f"{prefix}{column.path}"
