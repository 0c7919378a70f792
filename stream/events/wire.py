"""Events as they may be written: what is accepted besides the one form in `prectr.stream.events.contract`.

The JSON Schema is generated from these types. Everything is converted here, so that nothing else knows more than one
form of an event.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from prectr.stream.events.contract import (
    DEFAULT_ACTION,
    MAX_CONTEXT,
    MAX_FEATURES,
    MAX_ID_BYTES,
    MAX_ITEMS,
    MAX_LABEL,
    MAX_POSITION,
    MAX_TEXT,
    Click,
    Event,
    Item,
    ResultPage,
)
from prectr.stream.events.event_time import ISO_PATTERN, MAX_TS, MIN_TS, parse_iso

MAX_EXACT_FLOAT: Final = 1 << 53
"""Beyond this a float has lost digits, so that it may stand for several ids."""

_ID: Final = "An id, at most 256 bytes of UTF-8; a whole number is read as its decimal form."
IntegralFloat = Annotated[float, Meta(ge=-MAX_EXACT_FLOAT, le=MAX_EXACT_FLOAT, multiple_of=1)]
WireId = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES, description=_ID)] | int | IntegralFloat
WireUser = Annotated[str, Meta(max_length=MAX_ID_BYTES)] | int | IntegralFloat | None
"""Null and empty are none."""
WireTime = (
    Annotated[int, Meta(ge=MIN_TS, le=MAX_TS, description="Event time, milliseconds since 1970.")]
    | Annotated[float, Meta(ge=MIN_TS, le=MAX_TS, multiple_of=1)]
    | Annotated[str, Meta(pattern=ISO_PATTERN, description="Event time, ISO 8601 with a time zone, from 2000 on.")]
)
WireLevel = (
    Annotated[int, Meta(ge=1, le=4, description="Relevance: 1 irrelevant, 2 weakly, 3 relevant, 4 strongly relevant.")]
    | Annotated[float, Meta(ge=1, le=4, multiple_of=1)]
)
WirePosition = (
    Annotated[int, Meta(ge=1, le=MAX_POSITION, description="From 1; by default the index in the list plus 1.")]
    | Annotated[float, Meta(ge=1, le=MAX_POSITION, multiple_of=1)]
)
Label = Annotated[str, Meta(max_length=MAX_LABEL)]
WireFeatures = Annotated[
    dict[Label, Label | float | bool | None],
    Meta(
        max_length=MAX_FEATURES,
        description="Features by name: numbers or short strings; true is 1 and false 0, null is as if left out.",
    ),
]
WireContext = Annotated[
    dict[Label, Label | None],
    Meta(max_length=MAX_CONTEXT, description="Short strings by name; null is as if left out."),
]


class WireItem(msgspec.Struct, gc=False):
    """One item of a result page."""

    item_id: WireId
    title: Annotated[str, Meta(max_length=MAX_TEXT)] | None = None
    relevance: WireLevel | None = None
    price: float | None = None
    category: Label | None = None
    brand: Label | None = None
    position: WirePosition | None = None
    features: WireFeatures | None = None


class WirePage(msgspec.Struct, gc=False, tag_field="type", tag="impression"):
    """One result page as it was shown."""

    request_id: WireId
    query: (
        Annotated[str, Meta(max_length=MAX_TEXT, description="As the user typed it; null or empty for browsing.")]
        | None
    )
    ts: WireTime
    items: Annotated[
        list[WireItem],
        Meta(max_length=MAX_ITEMS, description="As shown, from the top; none for a search without hits."),
    ]
    user_id: WireUser = None
    session_id: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    context: WireContext | None = None
    features: WireFeatures | None = None


class WireClick(msgspec.Struct, gc=False, tag_field="type", tag="click"):
    """A click on an item of a page."""

    request_id: WireId
    item_id: WireId
    ts: WireTime
    user_id: WireUser = None
    session_id: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    action: (
        Annotated[str, Meta(min_length=1, max_length=MAX_LABEL, description="What the user did; by default click.")]
        | None
    ) = None


WireEvent = WirePage | WireClick

_decode: Final = msgspec.json.Decoder(WireEvent).decode
decode_id: Final = msgspec.json.Decoder(WireId).decode
_NO_ID: Final = (b"null", b'""')
_MISSING: Final = "Object missing required field `user_id`"


def decode_wire_event(line: bytes) -> Event:
    """Decode an event in any accepted form, and return it in the one form of the contract.

    Raises msgspec.DecodeError, as msgspec words it: with the JSON path of the wrong value.
    """
    written = _decode(line)
    if isinstance(written, WireClick):
        return Click(
            id_text(written.request_id),
            visitor_id(written.user_id, written.session_id),
            id_text(written.item_id),
            _to_millis(written.ts),
            written.action or DEFAULT_ACTION,
        )
    return ResultPage(
        id_text(written.request_id),
        visitor_id(written.user_id, written.session_id),
        written.query or "",
        _to_millis(written.ts),
        [_to_item(item) for item in written.items],
        None if written.context is None else {name: text for name, text in written.context.items() if text is not None},
        _to_features(written.features),
    )


def id_text(written: str | float) -> str:
    """Return an id as text; a number in its decimal form."""
    return written if isinstance(written, str) else str(int(written))


def visitor_id(user_id: str | float | None, session_id: msgspec.Raw) -> str:
    """Return the id of a user, or of the session of a visitor who has none.

    Where there is a user, `session_id` is an ignored field, whatever it holds. It is empty where the event has none.

    Raises msgspec.ValidationError.
    """
    if user_id is not None and user_id != "":
        return id_text(user_id)
    if not session_id or bytes(session_id) in _NO_ID:
        raise msgspec.ValidationError(_MISSING)
    try:
        return id_text(decode_id(session_id))
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{error} - at `$.session_id`") from None


def _to_millis(written: float | str) -> int:
    if not isinstance(written, str):
        return int(written)
    try:
        ts = parse_iso(written)
    except ValueError as error:
        raise msgspec.ValidationError(f"{error} - at `$.ts`") from None
    if not MIN_TS <= ts <= MAX_TS:
        raise msgspec.ValidationError("Expected a time from 2000 to 9999 - at `$.ts`")
    return ts


def _to_item(written: WireItem) -> Item:
    return Item(
        id_text(written.item_id),
        written.title,
        None if written.relevance is None else int(written.relevance),
        written.price,
        written.category,
        written.brand,
        None if written.position is None else int(written.position),
        _to_features(written.features),
    )


def _to_features(written: dict[str, str | float | bool | None] | None) -> dict[str, float | str] | None:
    if written is None:
        return None
    return {
        name: value if isinstance(value, str) else float(value) for name, value in written.items() if value is not None
    }
