"""OpenSearch User Behavior Insights (spec 1.0 to 1.3) to events: `ubi_queries` and `ubi_events`, bulk or plain NDJSON.

UBI records an event for each item shown. They are gathered into pages by client and query id; an ordinal that comes
again begins another page, since one query id often spans several (type-ahead, a new visit to the results).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from prectr.stream.convert.event_log import EventLog
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.outcome import ConversionReport, Unmappable
from prectr.stream.convert.rows import Row
from prectr.stream.convert.times import to_millis
from prectr.stream.convert.values import to_id, to_number, to_optional_id, to_text, to_whole

MAX_ITEMS: Final = 200
PAGE_GAP: Final = 30 * 60 * 1000
"""Milliseconds between two impressions of a query after which the later one begins another page."""
_IMPRESSIONS: Final = ("impression", "view")
"""Chorus called impressions `view` before `impression` (chorus-opensearch-edition#134)."""
_MAX_ORDINAL: Final = 999_999
_BULK_ACTIONS: Final = ({"index"}, {"create"})


class _Record(msgspec.Struct, array_like=True):
    """A UBI document, reduced to what pages and clicks are made of. kind: query, impression, or an action."""

    kind: str
    ts: int
    user: str
    is_session: bool
    query: str | None
    application: str
    place: str
    item: dict[str, Any] | None = None
    ordinal: int | None = None
    hits: list[str] = []
    action: str = ""


class _Page(msgspec.Struct):
    """A page that is being gathered. ordinals: as recorded, from 0 or from 1."""

    first: _Record
    items: list[dict[str, Any]]
    ordinals: list[int | None]
    last_ts: int
    request_id: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class UbiDocuments:
    """Gathers UBI documents, in any order and from any number of files, until `finish`."""

    def __init__(
        self, log: EventLog, sorter: ExternalSorter, report: ConversionReport, click_actions: Sequence[str]
    ) -> None:
        """`click_actions`: the action names that are clicks."""
        self._log = log
        self._sorter = sorter
        self._report = report
        self._click_actions = frozenset(click_actions)
        self._lowest_ordinal: dict[str, int] = {}
        report.clicks_on_page = report.clicks_off_page = report.clicks_without_page = 0

    def add(self, row: Row) -> None:
        """Add a line of the file: a document, or an action line of the bulk format, which is passed over."""
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
        self._sorter.add((query_id, record.ts, record.kind != "query"), _encode(record))

    def finish(self) -> None:
        """Convert everything that was added."""
        records = ((key[0], _decode(payload)) for key, payload in self._sorter)
        for query_id, group in groupby(records, key=lambda record: record[0]):
            self._convert_query(str(query_id), [record for _, record in group])

    def _record(self, document: Any, place: str) -> tuple[str, _Record]:
        if not isinstance(document, dict):
            raise Unmappable("not_an_object", f"{document!r}")
        action = document.get("action_name")
        attributes = _table(document, "event_attributes")
        if action is not None and action not in _IMPRESSIONS and action not in self._click_actions:
            raise Unmappable(f"action_{action}"[:60], "neither an impression nor one of the click actions")
        query_id = to_id("query_id", document.get("query_id"))
        user = to_optional_id("client_id", document.get("client_id"))
        session = to_optional_id("session_id", document.get("session_id") or attributes.get("session_id"))
        if user is None and session is None:
            raise Unmappable("missing_client_id", "neither client_id nor session_id")
        record = _Record(
            "query" if action is None else "impression" if action in _IMPRESSIONS else "click",
            to_millis(document.get("timestamp"), "auto", None),
            user or session or "",
            user is None,
            to_text("user_query", document.get("user_query"), 2000),
            str(document.get("application") or ""),
            place,
            action=action or "",
        )
        if action is None:
            hits = document.get("query_response_hit_ids") or []
            record.hits = [to_id("hit", hit) for hit in hits] if isinstance(hits, list) else []
            return query_id, record
        record.item = _item(_table(attributes, "object"))
        record.ordinal = to_whole("ordinal", _table(attributes, "position").get("ordinal"), 0, _MAX_ORDINAL)
        if record.kind == "impression" and record.ordinal is not None:
            lowest = self._lowest_ordinal.get(record.application, record.ordinal)
            self._lowest_ordinal[record.application] = min(lowest, record.ordinal)
        return query_id, record

    def _convert_query(self, query_id: str, records: list[_Record]) -> None:
        text = next((record.query for record in records if record.query), None)
        by_user: dict[str, list[_Record]] = {}
        for record in records:
            by_user.setdefault(record.user, []).append(record)
        for own in by_user.values():
            pages = _pages(own)
            for number, page in enumerate(pages, 1):
                page.request_id = query_id if number == 1 else f"{query_id}#{number}"
                self._add_page(page, text)
            for record in own:
                if record.kind == "click":
                    self._add_click(record, _page_of(record, pages), query_id)

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
            **_user(page.first),
            "query": page.first.query or text or "",
            "ts": page.first.ts,
            "items": page.items,
        }
        self._log.add(event, page.first.place)

    def _add_click(self, record: _Record, page: _Page | None, query_id: str) -> None:
        assert record.item is not None
        report = self._report
        event = {
            "type": "click",
            "request_id": query_id if page is None else page.request_id,
            **_user(record),
            "item_id": record.item["item_id"],
            "ts": record.ts,
            "action": record.action,
        }
        if page is None:
            report.clicks_without_page = (report.clicks_without_page or 0) + 1
        elif _shows(page, record.item["item_id"]):
            report.clicks_on_page = (report.clicks_on_page or 0) + 1
        else:
            report.clicks_off_page = (report.clicks_off_page or 0) + 1
        self._log.add(event, record.place)


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _item(found: dict[str, Any]) -> dict[str, Any]:
    """The item of an event; UBI 1.0 has its title in `name`, later ones in `description`."""
    item: dict[str, Any] = {"item_id": to_id("object_id", found.get("object_id") or found.get("internal_id"))}
    title = to_text("description", found.get("description") or found.get("name"), 2000)
    if title:
        item["title"] = title
    detail = _table(found, "object_detail")
    price = detail.get("price")
    if isinstance(price, int | float) and not isinstance(price, bool):
        item["price"] = to_number("price", price)
    return item


def _pages(records: Iterable[_Record]) -> list[_Page]:
    """Gather the impressions of one client and query, by time; of the hits of the query where there are none."""
    pages: list[_Page] = []
    for record in records:
        if record.kind != "impression":
            continue
        assert record.item is not None
        page = pages[-1] if pages else None
        again = page is not None and (
            _shows(page, record.item["item_id"]) if record.ordinal is None else record.ordinal in page.ordinals
        )
        if page is None or again or record.ts - page.last_ts > PAGE_GAP:
            page = _Page(record, [], [], record.ts)
            pages.append(page)
        page.items.append(record.item)
        page.ordinals.append(record.ordinal)
        page.last_ts = record.ts
    if pages:
        return pages
    return [
        _Page(record, [{"item_id": hit} for hit in record.hits], [None] * len(record.hits), record.ts)
        for record in records
        if record.kind == "query" and record.hits
    ]


def _page_of(click: _Record, pages: Sequence[_Page]) -> _Page | None:
    """The newest page before a click that shows its item; else the newest page before it, else any that shows it."""
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


def _user(record: _Record) -> dict[str, str]:
    return {"session_id" if record.is_session else "user_id": record.user}
