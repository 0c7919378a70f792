"""Columns of a sample of rows, recognised by their names and values."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.values import is_bracketed, parse_json, split_list, to_optional_id

FIELD_NAMES: Final[dict[str, tuple[str, ...]]] = {
    field: tuple(names.split())
    for field, names in {
        "request_id": "request_id search_id query_id page_id impression_id serp_id search_uuid search_request_id"
        " list_id ranking_id ranking srch_id page_view_id request_uuid",
        "user_id": "user_id user customer_id customer visitor_id visitor client_id member_id account_id uid profile_id"
        " cookie_id cookie device_id person_id user_pseudo_id anonymous_id"
        " user_token",
        "session_id": "session_id session sid visit_id",
        "query": "query search_query user_query query_text search_term searchterm search_text keyword keywords q term"
        " search phrase",
        "ts": "ts timestamp event_time time datetime event_timestamp created_at date_time searched_at shown_at"
        " requested_at received_at occurred_at event_ts ts_ms server_time unix_time time_stamp epoch date when",
        "items": "items results products item_ids shown_items shown product_ids result_ids impressions hits docs"
        " documents doc_ids list slate candidates displayed skus shown_ids shown_item_ids search_results"
        " object_ids",
        "item_id": "item_id product_id sku asin doc_id object_id article_id item product listing_id offer_id"
        " document_id item_code id",
        "clicked": "clicked is_clicked click is_click clicks clicked_items clicked_item clicked_item_ids"
        " clicked_item_id clicked_ids clicked_id clicked_products clicked_product clicked_product_ids"
        " clicked_product_id clicked_skus clicked_sku clicked_docs clicked_doc clicked_doc_id click_items click_item"
        " click_item_id click_ids click_id was_clicked label interactions feedback events",
        "click_position": "click_position clicked_position clicked_rank click_rank clicked_index clicked_pos",
        "click_ts": "click_ts click_time clicked_at click_timestamp clicked_time click_times",
        "event": "event event_type type action action_name event_name action_type",
        "position": "position rank pos ordinal slot item_position",
        "title": "title name product_name product_title item_title item_name description",
        "price": "price sale_price unit_price price_eur price_usd price_cents price_in_cents amount",
        "category": "category category_name department cat genre genres product_type categories",
        "brand": "brand manufacturer vendor brand_name maker",
        "relevance": "relevance relevance_level grade",
    }.items()
}
"""Names of columns by the field of events that they mean, the surest first."""
_ID: Final = r".*(id|uuid|key|token|hash|code|sku|number)$"
_NAME_PATTERNS: Final = {
    field: re.compile(pattern)
    for field, pattern in {
        "request_id": rf"(search|request|query|page|impression|serp){_ID}",
        "user_id": rf"(user|customer|visitor|client|member|account|person|shopper|buyer|guest|cookie|device){_ID}",
        "session_id": rf"(session|visit){_ID}",
        "query": r"(query|keyword|search_?term|search_?text|phrase)s?(_\w*(?<!id))?$",
        "items": r"(items|products|results|hits|docs|documents|skus|listings|offers|ids)$",
        "item_id": rf"(item|product|doc|article|listing|offer|content|variant|hotel|prop|object|movie|book|job){_ID}",
        "clicked": r"click(?!.*(time|ts|at|date|position|rank|pos|index|url)$)",
        "click_ts": r"click.*(time|timestamp|ts|at|date)$",
    }.items()
}
"""Patterns of further names of columns, for fields that no column has a known name of."""
_KNOWN_NAMES: Final = frozenset(name for names in FIELD_NAMES.values() for name in names)
CLICK_WORDS, PAGE_WORDS = (
    frozenset(words.split())
    for words in (
        "click clicked click_through item_click item_clicked product_click product_clicked result_click result_clicked"
        " search_click select_item select_content open tap",
        "impression impressions item_impression product_impression search searched view page ranking search_result"
        " search_results view_search_results view_item_list results serp serp_view shown show display exposure query"
        " product_list_viewed products_searched",
    )
)
"""Normalised names of events that are clicks, and of those that are pages or items shown."""
_SEPARATORS: Final = "|;,"
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MAX_DEPTH: Final = 3
_MAX_PARTS_OF_AN_ID: Final = 3


class Column(msgspec.Struct):
    """A column, or a field of the objects in one.

    path: as a JMESPath expression; key: its normalised name; values: those that are not empty; array: how a value is
    read as a list: "list", "json", a separator, or None where it is none; elements: those of all lists.
    """

    path: str
    key: str
    values: list[Any]
    array: str | None = None
    elements: list[Any] = []

    @property
    def is_list(self) -> bool:
        """Whether its values are lists beyond doubt, and no texts with separators in them."""
        return self.array in ("list", "json")

    def list_expression(self, prefix: str = "") -> str:
        """Return the expression of the list; `prefix` stands before the path."""
        path = prefix + self.path
        if self.array == "json":
            return f"parse_json({path})"
        return path if self.array is None or self.array == "list" else split_expression(path, self.array)


def split_expression(path: str, separator: str) -> str:
    """Return the expression of the parts of a text."""
    return f"split({path}, '{separator}')"


def columns_of(rows: Iterable[dict[str, Any]]) -> list[Column]:
    """Return the columns of rows in the order in which they appear; fields of nested objects are columns as well."""
    found: dict[str, Column] = {}
    for row in rows:
        _collect(row, "", "", found, 1)
    for column in found.values():
        column.array, column.elements = _as_array(column)
    return list(found.values())


def _collect(row: dict[str, Any], path: str, key: str, found: dict[str, Column], depth: int) -> None:
    for name, value in row.items():
        own_path = path + reference(name)
        own_key = f"{key}{normalised(name)}"
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            _collect(value, f"{own_path}.", f"{own_key}_", found, depth + 1)
            continue
        column = found.setdefault(own_path, Column(own_path, own_key, []))
        if value is not None and value != "":
            column.values.append(value)


def _as_array(column: Column) -> tuple[str | None, list[Any]]:
    """Return how the values of a column are read as lists, and the elements of all of them."""
    values = column.values
    if values and all(isinstance(each, list) for each in values):
        return "list", [element for each in values for element in each]
    texts = [each for each in values if isinstance(each, str)]
    if not texts or len(texts) != len(values):
        return None, []
    if all(each.lstrip().startswith("[") for each in texts):
        parsed = _parsed(texts)
        if parsed is not None:
            return "json", parsed
    is_named = column.key in FIELD_NAMES["items"]
    bracketed = all(is_bracketed(each.strip()) for each in texts)
    for separator in f"{_SEPARATORS} " if is_named or bracketed else _SEPARATORS:
        lists = [split_list(each, separator) for each in texts]
        if _are_lists(column.key, lists, 1 if is_named else len(lists) // 2 + 1):
            return separator, [part for parts in lists for part in parts]
    return None, []


def _are_lists(key: str, lists: Sequence[Sequence[str]], least: int) -> bool:
    """Return whether texts look like lists: at least `least` of them have several parts, none with a blank in it.

    Titles and queries contain separators as well, and so do ids, such as `shop|7`.
    """
    lengths = [len(parts) for parts in lists]
    if key.endswith("id") and len(set(lengths)) == 1 and lengths[0] <= _MAX_PARTS_OF_AN_ID:
        return False
    return sum(length > 1 for length in lengths) >= least and not any(" " in part for parts in lists for part in parts)


def _parsed(texts: Sequence[str]) -> list[Any] | None:
    """Return the elements of all arrays that the texts contain; None where one does not parse."""
    try:
        return [element for each in texts for element in parse_json(each)]
    except (ValueError, TypeError, RecursionError):
        return None


def separator_of_ids(values: Sequence[Any], ids: set[str]) -> str | None:
    """Return the separator by which some values are lists of the ids; None where no value is one."""
    for separator in f"{_SEPARATORS} ":
        texts = [each.strip() for each in values if isinstance(each, str) and each.strip() not in ids]
        lists = [each for each in texts if separator in each or is_bracketed(each)]
        if lists and all(part in ids for each in lists for part in split_list(each, separator)):
            return separator
    return None


def candidates(field: str, columns: Sequence[Column]) -> list[Column]:
    """Return the columns that may be a field, the surest first.

    Those of a name of the field come first, then nested ones by their last name, then those that match its pattern.
    """
    by_key: dict[str, Column] = {}
    by_last_name: dict[str, Column] = {}
    for column in columns:
        by_key.setdefault(column.key, column)
        if "." in column.path:
            by_last_name.setdefault(normalised(column.path.rpartition(".")[2]), column)
    names = FIELD_NAMES[field]
    pattern = _NAME_PATTERNS.get(field)
    found = [by_key[name] for name in names if name in by_key]
    found += [by_last_name[name] for name in names if name in by_last_name and name not in ("id", "name", "type")]
    if pattern is not None:
        found += [each for key, each in by_key.items() if key not in _KNOWN_NAMES and pattern.search(key)]
    return list({id(each): each for each in found}.values())


def ids_of(values: Iterable[Any]) -> set[str]:
    """Return the ids among values, as events have them."""
    found = set()
    for value in values:
        try:
            found.add(to_optional_id("id", value) or "")
        except Unmappable:
            continue
    return found - {""}


def is_flag(value: Any) -> bool:
    """Return whether a value looks like yes or no."""
    if isinstance(value, str):
        return value.strip().lower() in ("0", "1", "true", "false", "yes", "no", "t", "f", "y", "n", "0.0", "1.0")
    return isinstance(value, bool | int | float) and value in (0, 1)


def numbers_of(values: Iterable[Any]) -> list[float]:
    """Return the numbers among values."""
    found = []
    for value in values:
        try:
            found.append(float(value))
        except (TypeError, ValueError, OverflowError):
            continue
    return found


def normalised(name: str) -> str:
    """Return a name in lower case with underscores: `userId`, `User ID` and `user-id` are all `user_id`."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()


def reference(name: str) -> str:
    """Return the JMESPath expression of a column, quoted where its name needs it."""
    return name if _PLAIN_NAME.match(name) else json.dumps(name, ensure_ascii=False)
