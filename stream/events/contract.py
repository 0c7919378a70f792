"""The contract of topic `search-events`: result pages and clicks, as JSON.

Bytes that do not decode to one of these are an `InvalidEvent`, which ends as a dead letter.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

MAX_EVENT_BYTES: Final = 1 << 20
MAX_ID_BYTES: Final = 256
MAX_TS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999; later times are invalid."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES, description="An id, at most 256 bytes of UTF-8.")]
Millis = Annotated[int, Meta(ge=0, le=MAX_TS, description="Event time, milliseconds since the epoch.")]
Level = Annotated[
    int, Meta(ge=1, le=4, description="Relevance: 1 irrelevant, 2 weakly, 3 relevant, 4 strongly relevant.")
]

Text = Annotated[str, Meta(max_length=256)]
Features = Annotated[
    dict[Text, Annotated[float, Meta(description="A finite number.")] | Text],
    Meta(max_length=64, description="Features by name, at most 64: numbers, or strings of at most 256 characters."),
]
"""Numbers are float and finite, also where the log has integers."""
Context = Annotated[
    dict[Text, Text], Meta(max_length=64, description="Strings by name, at most 64, of at most 256 characters each.")
]


class Item(msgspec.Struct, gc=False, omit_defaults=True):
    """One item of a result page."""

    item_id: Id
    title: Annotated[str, Meta(max_length=2000)] | None = None
    relevance: Level | None = None
    price: float | None = None
    category: Text | None = None
    brand: Text | None = None
    position: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="From 1; by default the index in the list plus 1.")] | None
    ) = None
    features: Features | None = None


class ResultPage(msgspec.Struct, gc=False, omit_defaults=True, tag_field="type", tag="impression"):
    """One result page as it was shown; its wire tag is `impression`."""

    request_id: Id
    user_id: Id
    query: Annotated[str, Meta(max_length=2000)]
    ts: Millis
    items: Annotated[list[Item], Meta(min_length=1, max_length=200)]
    context: Context | None = None
    features: Features | None = None


class Click(msgspec.Struct, gc=False, omit_defaults=True, tag_field="type", tag="click"):
    """A click on an item of a page."""

    request_id: Id
    user_id: Id
    item_id: Id
    ts: Millis
    action: Annotated[str, Meta(min_length=1, max_length=256)] = "click"


Event = ResultPage | Click


class InvalidEvent(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are not a valid event.

    Attributes:
        reason: short code, used as a metric label.
        detail: what is wrong and where.
        kind: event type found in the bytes: `impression`, `click`, or `unreadable` if none is found.
        user_id: user id found in the bytes, if any.
    """

    reason: str
    detail: str
    kind: str
    user_id: str | None
