"""The records between the stages and to the trainer: one per result page.

Records are msgpack arrays. Fields that a stage only forwards (the page, the click histories) stay encoded
(`msgspec.Raw`), so that a page is encoded once, when it enters, however many stages it passes.
"""

from operator import attrgetter

import msgspec

from prectr.state.aggregates import DecayedSums, LevelCounts
from prectr.stream.events.contract import ResultPage

OrderKey = tuple[int, str, str]
"""(close time, request_id, user_id). Strings compare by code point, which is the order of their UTF-8 bytes."""


class UserClick(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A joined click in its user's history. Order: (ts, request_id, item_id)."""

    ts: int
    request_id: str
    item_id: str
    query: str
    title: str | None
    level: int
    category: str | None
    brand: str | None
    price: float | None


class QueryClick(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A joined click in its query's list of recent clicks by all users."""

    ts: int
    item_id: str
    level: int
    category: str | None
    brand: str | None
    price: float | None


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

    closes_at: int
    request_id: str
    user_id: str
    ts: int
    query: str
    labels: bytes
    levels: bytes
    counts: LevelCounts
    user_activity: int
    user_stats: LevelCounts
    history: msgspec.Raw
    page: msgspec.Raw
    clicks: tuple[bytes, ...]


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

    closes_at: int
    request_id: str
    user_id: str
    ts: int
    query: str
    labels: bytes
    levels: bytes
    user_activity: int
    user_stats: LevelCounts
    query_stats: LevelCounts
    query_decayed: DecayedSums
    history: msgspec.Raw
    query_clicks: msgspec.Raw
    page: msgspec.Raw


decode_page = msgspec.msgpack.Decoder(ResultPage).decode
decode_history = msgspec.msgpack.Decoder(list[UserClick]).decode
decode_query_clicks = msgspec.msgpack.Decoder(list[QueryClick]).decode
encode_record = msgspec.msgpack.Encoder().encode
decode_example = msgspec.msgpack.Decoder(Example).decode
decode_joined_page = msgspec.msgpack.Decoder(JoinedPage).decode

order_key_of = attrgetter("closes_at", "request_id", "user_id")
"""Returns a record's position in the total order as an `OrderKey`, for sorting."""
