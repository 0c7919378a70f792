"""Events of anonymous visitors in the one form of the contract, but for a `session_id` in place of the `user_id`.

Where nobody has to log in, most events are such. They are decoded apart from the other accepted forms, in less time.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from prectr.stream.events.contract import (
    DEFAULT_ACTION,
    MAX_ITEMS,
    Action,
    Click,
    Context,
    Event,
    Features,
    Id,
    Item,
    Millis,
    ResultPage,
    Text,
)


class _SessionPage(msgspec.Struct, gc=False, tag_field="type", tag="impression"):
    request_id: Id
    session_id: Id
    query: Text
    ts: Millis
    items: Annotated[list[Item], Meta(max_length=MAX_ITEMS)]
    context: Context | None = None
    features: Features | None = None
    user_id: None = None


class _SessionClick(msgspec.Struct, gc=False, tag_field="type", tag="click"):
    request_id: Id
    session_id: Id
    item_id: Id
    ts: Millis
    action: Action = DEFAULT_ACTION
    user_id: None = None


_decode: Final = msgspec.json.Decoder(_SessionPage | _SessionClick).decode


def decode_session_event(line: bytes) -> Event:
    """Decode an event without a user, and return it with the session's id as `user_id`.

    Raises msgspec.ValidationError where it has a user, or anything in another form.
    """
    found = _decode(line)
    if isinstance(found, _SessionClick):
        return Click(found.request_id, found.session_id, found.item_id, found.ts, found.action)
    return ResultPage(
        found.request_id, found.session_id, found.query, found.ts, found.items, found.context, found.features
    )
