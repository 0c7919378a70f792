"""What the `sessions` stage keeps in the store: the keys, what stands under them, and how it comes back into memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from prectr.state.store import ReadableStore
from prectr.stream.events.contract import Click
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import FutureEvent
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.join.user_state import PendingPage, UserState
from prectr.stream.records import decode_page

META_KEY: Final = b"m"
_USER: Final = b"u"
_PENDING_PAGE: Final = b"p"
_PENDING_CLICK: Final = b"w"
_AFTER_LAST_ID: Final = b"\xff" * 9
"""After every number, as the end of a scan."""


class PendingClick(msgspec.Struct, array_like=True, gc=False):
    """A click whose page has not come. number: its place among the waiting clicks of the task."""

    pending_id: int
    click: Click


class JoinMeta(msgspec.Struct, array_like=True):
    """Everything of the task that is not of one user. position: of the next unread record."""

    next_offset: int = 0
    max_event_time: int | None = None
    future_events: list[FutureEvent] = []
    next_pending_id: int = 0
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)


class _StoredPendingPage(msgspec.Struct, array_like=True, gc=False):
    closes_at: int
    labels: bytes
    joined_clicks: list[tuple[int, str, bytes]]
    content_hash: bytes
    encoded_page: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(JoinMeta).decode
_decode_stored_page = msgspec.msgpack.Decoder(_StoredPendingPage).decode
_decode_pending_click = msgspec.msgpack.Decoder(PendingClick).decode


# --- keys and values --------------------------------------------------------------------------------------------------


def user_key(user_id: str) -> bytes:
    """Where a user's entry stands."""
    return _USER + user_id.encode()


def pending_page_key(pending_id: int) -> bytes:
    """Where an open page stands."""
    return _PENDING_PAGE + pending_id.to_bytes(8, "big")


def pending_click_key(pending_id: int) -> bytes:
    """Where a click that waits for its page stands."""
    return _PENDING_CLICK + pending_id.to_bytes(8, "big")


def encode_meta(meta: JoinMeta) -> bytes:
    """The value under `META_KEY`."""
    return _encode(meta)


def encode_pending_page(page: PendingPage) -> bytes:
    """The value under an open page's key; what follows from it is left out."""
    return _encode(
        _StoredPendingPage(page.closes_at, bytes(page.labels), page.joined_clicks, page.content_hash, page.encoded_page)
    )


def encode_pending_click(pending_click: PendingClick) -> bytes:
    """The value under a waiting click's key."""
    return _encode(pending_click)


# --- back into memory -------------------------------------------------------------------------------------------------


def read_meta(store: ReadableStore) -> JoinMeta:
    """The task's own entry; that of a task which begins, where there is none."""
    (stored,) = store.get_many([META_KEY])
    return JoinMeta() if stored is None else _decode_meta(stored)


def read_users(store: ReadableStore, user_ids: Sequence[str]) -> list[UserState]:
    """Users without their open pages and waiting clicks, in one multi-get; new ones, where there are none."""
    return [UserState(value) for value in store.get_many([user_key(user_id) for user_id in user_ids])]


def read_pending_pages(store: ReadableStore, get_user: Callable[[str], UserState]) -> Iterator[PendingPage]:
    """All open pages, by number. `resident` gives the user of a page."""
    for key, value in store.scan(_PENDING_PAGE, _PENDING_PAGE + _AFTER_LAST_ID):
        stored = _decode_stored_page(value)
        event = decode_page(stored.encoded_page)
        yield PendingPage(
            int.from_bytes(key[1:], "big"),
            stored.closes_at,
            event,
            stored.encoded_page,
            stored.content_hash,
            normalise_query(event.query),
            get_user(event.user_id),
            bytes([item.relevance for item in event.items]),  # type: ignore[misc]  # filled in before it was stored
            bytearray(stored.labels),
            stored.joined_clicks,
            dirty=False,
            stored=True,
        )


def read_pending_clicks(store: ReadableStore) -> Iterator[PendingClick]:
    """All clicks that wait for their pages, by number."""
    return (_decode_pending_click(value) for _, value in store.scan(_PENDING_CLICK, _PENDING_CLICK + _AFTER_LAST_ID))
