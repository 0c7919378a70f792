"""The contract of topic `search-events`: result pages and clicks, as everything after the decoder knows them.

In the log they are JSON in this form, or in one of those that `prectr.stream.events.wire` converts to it. Bytes that
do not decode to one of these are an `InvalidEvent`, which ends as a dead letter.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from prectr.stream.events.event_time import MAX_TS, MIN_TS

MAX_EVENT_BYTES: Final = 1 << 20
MAX_ID_BYTES: Final = 256
MAX_ITEMS: Final = 200
MAX_TEXT: Final = 2000
"""Characters of a query or a title."""
MAX_LABEL: Final = 256
"""Characters of a category, a brand, an action, and of names and texts in `context` and `features`."""
MAX_FEATURES: Final = 64
MAX_CONTEXT: Final = 64
MAX_POSITION: Final = 1_000_000
DEFAULT_ACTION: Final = "click"

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Millis = Annotated[int, Meta(ge=MIN_TS, le=MAX_TS)]
Level = Annotated[int, Meta(ge=1, le=4)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Label = Annotated[str, Meta(max_length=MAX_LABEL)]
Features = Annotated[dict[Label, float | Label], Meta(max_length=MAX_FEATURES)]
"""Numbers are float and finite, also where the log has integers."""
Action = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]
Context = Annotated[dict[Label, Label], Meta(max_length=MAX_CONTEXT)]


class Item(msgspec.Struct, gc=False, omit_defaults=True):
    """One item of a result page."""

    item_id: Id
    title: Text | None = None
    relevance: Level | None = None
    price: float | None = None
    category: Label | None = None
    brand: Label | None = None
    position: Annotated[int, Meta(ge=1, le=MAX_POSITION)] | None = None
    features: Features | None = None


class ResultPage(msgspec.Struct, gc=False, omit_defaults=True, tag_field="type", tag="impression"):
    """One result page as it was shown; its wire tag is `impression`.

    `user_id` is the session's id where the visitor has no other. The query is empty for browsing, and `items` for a
    search without hits.
    """

    request_id: Id
    user_id: Id
    query: Text
    ts: Millis
    items: Annotated[list[Item], Meta(max_length=MAX_ITEMS)]
    context: Context | None = None
    features: Features | None = None


class Click(msgspec.Struct, gc=False, omit_defaults=True, tag_field="type", tag="click"):
    """A click, or another action, on an item of a page. `user_id` is as on its page."""

    request_id: Id
    user_id: Id
    item_id: Id
    ts: Millis
    action: Action = DEFAULT_ACTION


Event = ResultPage | Click


class InvalidEvent(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are not a valid event.

    Attributes:
        reason: short code, used as a metric label.
        detail: what is wrong and where.
        kind: event type found in the bytes: `impression`, `click`, or `unreadable` if none is found.
        user_id: user id, or session id, found in the bytes, if any.
    """

    reason: str
    detail: str
    kind: str
    user_id: str | None
