"""OpenSearch User Behavior Insights (spec 1.0 to 1.3) to events: `ubi_queries` and `ubi_events`, bulk or plain NDJSON.

UBI records one event for each item shown. They are collected into pages by query id and client; an ordinal that is
repeated begins another page, since one query id often spans several (type-ahead, a return to the results).
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from prectr.stream.convert.event_log import EventLog
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row
from prectr.stream.convert.times import to_millis
from prectr.stream.convert.values import (
    MAX_ITEMS,
    MAX_TEXT,
    shown,
    to_id,
    to_number,
    to_text,
    to_visitor,
    to_whole,
    visitor_key,
)

PAGE_GAP: Final = 30 * 60 * 1000
"""Milliseconds between two impressions of a query after which the later one begins another page."""
MAX_RECORDS: Final = 5_000
"""Records of one query and client, and query documents of one query id, that are held in memory; more are left out."""
_VIEW: Final = "view"
"""Name of impressions in early Chorus (chorus-opensearch-edition#134); elsewhere, a look at a product's own page."""
_IMPRESSIONS: Final = ("impression", _VIEW)
_MAX_ORDINAL: Final = 999_999
_BULK_ACTIONS: Final = ({"index"}, {"create"})


class _Record(msgspec.Struct, array_like=True):
    """The fields used to build pages and clicks from a UBI document. kind: query, impression or click."""

    kind: str
    ts: int
    visitor: dict[str, str]
    query: str | None
    application: str
    place: str
    item: dict[str, Any] | None = None
    ordinal: int | None = None
    hits: list[str] = []
    action: str = ""

    @property
    def client(self) -> str:
        """The key of the join."""
        return visitor_key(self.visitor)


class _Page(msgspec.Struct):
    """A page under construction. ordinals: as recorded, from 0 or from 1."""

    first: _Record
    items: list[dict[str, Any]]
    ordinals: list[int | None]
    last_ts: int
    request_id: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class UbiDocuments:
    """Collects UBI documents, in any order and from any number of files, until `finish`."""

    def __init__(
        self, log: EventLog, sorter: ExternalSorter, report: ConversionReport, click_actions: Sequence[str]
    ) -> None:
        """`click_actions`: the action names that are clicks."""
        self._log = log
        self._sorter = sorter
        self._report = report
        self._click_actions = frozenset(click_actions)
        self._lowest_ordinal: dict[str, int] = {}
        self._with_impressions: set[str] = set()
        self._on_page = self._off_page = self._without_page = 0

    def add(self, row: Row) -> None:
        """Add a line of the file: a document, or an action line of the bulk format, which is ignored."""
        if isinstance(row.value, Unmappable):
            self._report.rows += 1
            self._report.skip(row.value.reason, row.place, row.value.detail)
            return
        if row.value.keys() in _BULK_ACTIONS and isinstance(next(iter(row.value.values())), dict):
            return
        self._report.rows += 1
        document = row.value.get("_source", row.value)
        try:
            query_id, record = self._record(document, row.place)
        except Unmappable as error:
            self._report.skip(error.reason, row.place, error.detail)
            return
        # Query documents come first: their texts and hits are used by all clients of the query id.
        key = (query_id, record.kind != "query", record.client if record.kind != "query" else "", record.ts)
        self._sorter.add(key, _encode(record))

    def finish(self) -> None:
        """Convert all documents."""
        records = ((key, _decode(payload)) for key, payload in self._sorter)
        for query_id, documents in groupby(records, key=lambda entry: entry[0][0]):
            queries: list[_Record] = []
            clients: set[str] = set()
            for (_, is_event, client), group in groupby(documents, key=lambda entry: entry[0][:3]):
                own = self._first_records(record for _, record in group)
                if not is_event:
                    queries = own
                else:
                    clients.add(str(client))
                    self._convert_client(str(query_id), own, queries)
            without_events: dict[str, list[_Record]] = {}
            for query in queries:
                if query.client not in clients:
                    without_events.setdefault(query.client, []).append(query)
            for own in without_events.values():
                self._convert_client(str(query_id), own, queries)
        report = self._report
        report.clicks_on_page, report.clicks_off_page = self._on_page, self._off_page
        report.clicks_without_page = self._without_page

    def _first_records(self, records: Iterable[_Record]) -> list[_Record]:
        """Return the first `MAX_RECORDS`, and count the others."""
        kept: list[_Record] = []
        for record in records:
            if len(kept) < MAX_RECORDS:
                kept.append(record)
            else:
                self._report.skip("too_many_events_of_a_query", record.place, f"more than {MAX_RECORDS} of one client")
        return kept

    def _record(self, document: Any, place: str) -> tuple[str, _Record]:
        if not isinstance(document, dict):
            raise Unmappable("not_an_object", shown(document))
        action = to_text("action_name", document.get("action_name"), 100)
        attributes = _table(document, "event_attributes")
        if action is not None and action not in _IMPRESSIONS and action not in self._click_actions:
            raise Unmappable(f"action_{action}"[:60], "neither an impression nor one of the click actions")
        query_id = to_id("query_id", document.get("query_id"))
        session = document.get("session_id") or attributes.get("session_id")
        record = _Record(
            "query" if action is None else "impression" if action in _IMPRESSIONS else "click",
            # OpenSearch stores a date without a zone as UTC.
            to_millis(document.get("timestamp"), "auto", datetime.UTC),
            to_visitor("client_id", document.get("client_id") or document.get("user_id"), session),
            to_text("user_query", document.get("user_query"), MAX_TEXT),
            str(document.get("application") or ""),
            place,
            action=action or "",
        )
        if action is None:
            hits = document.get("query_response_hit_ids") or []
            record.hits = [to_id("hit", hit) for hit in hits] if isinstance(hits, list) else []
            return query_id, record
        record.item = _item(_table(attributes, "object"))
        if record.kind == "impression":
            if action != _VIEW:
                self._with_impressions.add(record.application)
            record.ordinal = self._ordinal(attributes, place)
            if record.ordinal is not None:
                lowest = self._lowest_ordinal.get(record.application, record.ordinal)
                self._lowest_ordinal[record.application] = min(lowest, record.ordinal)
        return query_id, record

    def _ordinal(self, attributes: dict[str, Any], place: str) -> int | None:
        """Return the position as recorded; in UBI 1.0 it is an object with an `index`."""
        ordinal = _table(attributes, "position").get("ordinal")
        if isinstance(ordinal, dict):
            ordinal = ordinal.get("index")
        try:
            return to_whole("ordinal", ordinal, 0, _MAX_ORDINAL)
        except Unmappable as error:
            self._report.skip(error.reason, place, error.detail)
            return None

    def _convert_client(self, query_id: str, own: list[_Record], queries: list[_Record]) -> None:
        """Convert the events of one query id and client, or its query documents where it has no events."""
        client = own[0].client
        text = next((record.query for record in (*queries, *own) if record.query), None)
        pages = list(_pages(self._impressions(own)))
        if not pages:
            pages = [_hits_page(query) for query in queries if query.client == client and query.hits]
        for number, page in enumerate(pages, 1):
            page.request_id = query_id if number == 1 else f"{query_id}#{number}"
            self._add_page(page, text)
        for record in own:
            if record.kind == "click":
                self._add_click(record, _page_of(record, pages), query_id)

    def _impressions(self, records: Iterable[_Record]) -> Iterator[_Record]:
        for record in records:
            if record.action == _VIEW and record.application in self._with_impressions:
                self._report.skip("view_beside_impressions", record.place, "the application has impressions as well")
            elif record.kind == "impression":
                yield record

    def _add_page(self, page: _Page, text: str | None) -> None:
        if len(page.items) > MAX_ITEMS:
            self._report.skip("too_many_items", page.first.place, f"{len(page.items)} items, of at most {MAX_ITEMS}")
            return
        shift = 1 - min(1, self._lowest_ordinal.get(page.first.application, 1))
        for item, ordinal in zip(page.items, page.ordinals, strict=True):
            if ordinal is not None:
                item["position"] = ordinal + shift
        page.items.sort(key=lambda item: item.get("position", 0))
        event = {
            "type": "impression",
            "request_id": page.request_id,
            **page.first.visitor,
            "query": page.first.query or text or "",
            "ts": page.first.ts,
            "items": page.items,
        }
        self._log.add(event, page.first.place)

    def _add_click(self, record: _Record, page: _Page | None, query_id: str) -> None:
        assert record.item is not None
        event = {
            "type": "click",
            "request_id": query_id if page is None else page.request_id,
            **record.visitor,
            "item_id": record.item["item_id"],
            "ts": record.ts,
            "action": record.action,
        }
        if page is None:
            self._without_page += 1
        elif _shows(page, record.item["item_id"]):
            self._on_page += 1
        else:
            self._off_page += 1
        self._log.add(event, record.place)


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _item(found: dict[str, Any]) -> dict[str, Any]:
    """Return the item of an event; its title is in `description`, or in `name` (UBI 1.0)."""
    item: dict[str, Any] = {"item_id": to_id("object_id", found.get("object_id") or found.get("internal_id"))}
    title = to_text("description", found.get("description") or found.get("name"), MAX_TEXT)
    if title:
        item["title"] = title
    detail = _table(found, "object_detail")
    price = detail.get("price")
    if isinstance(price, int | float) and not isinstance(price, bool):
        item["price"] = to_number("price", price)
    return item


def _pages(impressions: Iterable[_Record]) -> Iterator[_Page]:
    """Yield the pages of the impressions of one client and query, sorted by time."""
    page: _Page | None = None
    for record in impressions:
        assert record.item is not None
        if page is None or record.ts - page.last_ts > PAGE_GAP or _has_position_of(page, record):
            if page is not None:
                yield page
            page = _Page(record, [], [], record.ts)
        page.items.append(record.item)
        page.ordinals.append(record.ordinal)
        page.last_ts = record.ts
    if page is not None:
        yield page


def _has_position_of(page: _Page, record: _Record) -> bool:
    """Return whether a page has an item at the ordinal of an impression, or has its item where it has no ordinal."""
    assert record.item is not None
    return _shows(page, record.item["item_id"]) if record.ordinal is None else record.ordinal in page.ordinals


def _hits_page(query: _Record) -> _Page:
    """Return the page of the hits that the search engine returned, for clients that record no impressions."""
    return _Page(query, [{"item_id": hit} for hit in query.hits], [None] * len(query.hits), query.ts)


def _page_of(click: _Record, pages: Sequence[_Page]) -> _Page | None:
    """Return the newest page before a click with its item; else the newest before it; else the first with its item."""
    assert click.item is not None
    item_id = click.item["item_id"]
    before = [page for page in pages if page.first.ts <= click.ts]
    for page in reversed(before):
        if _shows(page, item_id):
            return page
    if before:
        return before[-1]
    return next((page for page in pages if _shows(page, item_id)), None)


def _shows(page: _Page, item_id: str) -> bool:
    return any(item["item_id"] == item_id for item in page.items)
