"""The records between the stages and to the trainer: one per result page.

Records are msgpack arrays. Fields that a stage only forwards (the page, the click histories) stay encoded
(`msgspec.Raw`), so that a page is encoded once, when it enters, however many stages it passes.
"""

import sys
from operator import attrgetter
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from prectr.state.aggregates import MAX_HALF_LIVES
from prectr.state.setting import YEAR
from prectr.stream.config import MAX_CLICK_LIST
from prectr.stream.events.contract import MAX_ITEMS, MAX_TEXT, Id, Label, Level, Millis, ResultPage, Text
from prectr.stream.events.event_time import MAX_TS, MIN_TS
from prectr.stream.join.outcomes import Count

OrderKey = tuple[int, str, str]
"""(close time, request_id, user_id). Strings compare by code point, which is the order of their UTF-8 bytes."""

MAX_CLOSES_AT: Final = MAX_TS + round(2 * YEAR * 1000)
"""The last event time plus the greatest `attribution_window`, with room for the close times of late records (ms)."""
_MAX_QUERY_KEY: Final = 64 * MAX_TEXT
"""Characters of a normalised query: Unicode's compatibility forms make up to 18 characters of one."""

CloseTime = Annotated[int, Meta(ge=MIN_TS, le=MAX_CLOSES_AT)]
QueryKey = Annotated[str, Meta(max_length=_MAX_QUERY_KEY)]
Price = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""Finite."""
Counts = tuple[Count, Count, Count, Count, Count, Count, Count, Count]
"""`LevelCounts`, each in its range."""
Sum = Annotated[float, Meta(ge=0.0, le=float(1 << 53))]
Sums = tuple[Sum, Sum, Sum, Sum, Sum, Sum, Sum, Sum]
PerItem = Annotated[bytes, Meta(min_length=1, max_length=MAX_ITEMS)]


class UserClick(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A joined click in its user's history. Order: (ts, request_id, item_id)."""

    ts: Millis
    request_id: Id
    item_id: Id
    query: Text
    title: Text | None
    level: Level
    category: Label | None
    brand: Label | None
    price: Price | None


class QueryClick(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A joined click in its query's list of recent clicks by all users."""

    ts: Millis
    item_id: Id
    level: Level
    category: Label | None
    brand: Label | None
    price: Price | None


class JoinedPage(msgspec.Struct, array_like=True, gc=False):
    """Record of `joined-pages`: a closed page, its labels, and its user as of the page's ts.

    Attributes:
        closes_at: close time in ms.
        query: normalised.
        labels, levels: one byte per item: 0 or 1, and 1 to 4.
        counts: the page's own impressions and clicks by level.
        user_activity: number of the user's joined clicks before the page.
        user_stats: impressions and clicks by level of the user's pages closed by then.
        history: msgpack array of `UserClick`.
        page: the `ResultPage`, with levels and positions filled in.
        clicks: the page's own clicks, each an encoded `QueryClick`.
    """

    closes_at: CloseTime
    request_id: Id
    user_id: Id
    ts: Millis
    query: QueryKey
    labels: PerItem
    levels: PerItem
    counts: Counts
    user_activity: Count
    user_stats: Counts
    history: msgspec.Raw
    page: msgspec.Raw
    clicks: Annotated[tuple[bytes, ...], Meta(max_length=MAX_ITEMS)]


class Example(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Record of `training-examples`: a page with everything that serving could have known at its ts.

    Attributes:
        closes_at: close time in ms; with request_id and user_id the position in the total order.
        query: normalised.
        labels, levels: one byte per item, in the page's order: 0 or 1, and 1 to 4.
        user_activity: number of the user's joined clicks before ts.
        user_stats: impressions and clicks by level of the user's pages closed by ts.
        query_stats: the same of the query's pages closed by ts.
        query_decayed: the same, exponentially decayed to ts, one for each half-life of the settings (float64).
        history: msgpack array of `UserClick`, oldest first.
        query_clicks: msgpack array of `QueryClick`, oldest first.
        page: the `ResultPage` as msgpack, with levels and positions filled in.
    """

    closes_at: CloseTime
    request_id: Id
    user_id: Id
    ts: Millis
    query: QueryKey
    labels: PerItem
    levels: PerItem
    user_activity: Count
    user_stats: Counts
    query_stats: Counts
    query_decayed: Annotated[tuple[Sums, ...], Meta(max_length=MAX_HALF_LIVES)]
    history: msgspec.Raw
    query_clicks: msgspec.Raw
    page: msgspec.Raw


decode_page = msgspec.msgpack.Decoder(ResultPage).decode
decode_history = msgspec.msgpack.Decoder(Annotated[list[UserClick], Meta(max_length=MAX_CLICK_LIST)]).decode
decode_query_clicks = msgspec.msgpack.Decoder(Annotated[list[QueryClick], Meta(max_length=MAX_CLICK_LIST)]).decode
decode_query_click = msgspec.msgpack.Decoder(QueryClick).decode
encode_record = msgspec.msgpack.Encoder().encode
decode_example = msgspec.msgpack.Decoder(Example).decode
decode_joined_page = msgspec.msgpack.Decoder(JoinedPage).decode

order_key_of = attrgetter("closes_at", "request_id", "user_id")
"""Returns a record's position in the total order as an `OrderKey`, for sorting."""
