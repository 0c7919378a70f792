"""What the `sessions` stage keeps in the store: the keys, what stands under them, and how it comes back into memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from prectr.state.store import Reads
from prectr.stream.events.contract import Click
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import Suspect
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.join.user_state import OpenPage, User
from prectr.stream.records import decode_page

META_KEY: Final = b"m"
_USER: Final = b"u"
_PAGE: Final = b"p"
_WAITING: Final = b"w"
_LAST: Final = b"\xff" * 9
"""After every number, as the end of a scan."""


class WaitingClick(msgspec.Struct, array_like=True, gc=False):
    """A click whose page has not come. number: its place among the waiting clicks of the task."""

    number: int
    click: Click


class SessionsMeta(msgspec.Struct, array_like=True):
    """Everything of the task that is not of one user. position: of the next unread record."""

    position: int = 0
    accepted: int | None = None
    suspects: list[Suspect] = []
    next_number: int = 0
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)


class _StoredPage(msgspec.Struct, array_like=True, gc=False):
    closes_at: int
    labels: bytes
    clicked: list[tuple[int, str, bytes]]
    hash: bytes
    page: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(SessionsMeta).decode
_decode_stored_page = msgspec.msgpack.Decoder(_StoredPage).decode
_decode_waiting = msgspec.msgpack.Decoder(WaitingClick).decode


# --- keys and values --------------------------------------------------------------------------------------------------


def user_key(user_id: str) -> bytes:
    """Where a user's entry stands."""
    return _USER + user_id.encode()


def page_key(number: int) -> bytes:
    """Where an open page stands."""
    return _PAGE + number.to_bytes(8, "big")


def waiting_key(number: int) -> bytes:
    """Where a click that waits for its page stands."""
    return _WAITING + number.to_bytes(8, "big")


def encode_meta(meta: SessionsMeta) -> bytes:
    """The value under `META_KEY`."""
    return _encode(meta)


def encode_page(page: OpenPage) -> bytes:
    """The value under an open page's key; what follows from it is left out."""
    return _encode(_StoredPage(page.closes_at, bytes(page.labels), page.clicked, page.hash, page.page))


def encode_waiting(waiting: WaitingClick) -> bytes:
    """The value under a waiting click's key."""
    return _encode(waiting)


# --- back into memory -------------------------------------------------------------------------------------------------


def read_meta(store: Reads) -> SessionsMeta:
    """The task's own entry; that of a task which begins, where there is none."""
    (stored,) = store.get_many([META_KEY])
    return SessionsMeta() if stored is None else _decode_meta(stored)


def read_users(store: Reads, user_ids: Sequence[str]) -> list[User]:
    """Users without their open pages and waiting clicks, in one multi-get; new ones, where there are none."""
    return [User(value) for value in store.get_many([user_key(user_id) for user_id in user_ids])]


def read_pages(store: Reads, resident: Callable[[str], User]) -> Iterator[OpenPage]:
    """All open pages, by number. `resident` gives the user of a page."""
    for key, value in store.scan(_PAGE, _PAGE + _LAST):
        stored = _decode_stored_page(value)
        event = decode_page(stored.page)
        yield OpenPage(
            int.from_bytes(key[1:], "big"),
            stored.closes_at,
            event,
            stored.page,
            stored.hash,
            normalise_query(event.query),
            resident(event.user_id),
            bytes([item.relevance for item in event.items]),  # type: ignore[misc]  # filled in before it was stored
            bytearray(stored.labels),
            stored.clicked,
            dirty=False,
            stored=True,
        )


def read_waiting(store: Reads) -> Iterator[WaitingClick]:
    """All clicks that wait for their pages, by number."""
    return (_decode_waiting(value) for _, value in store.scan(_WAITING, _WAITING + _LAST))
