"""Pending pages: result pages whose attribution window is still open."""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

import msgspec

from prectr.state.store import ReadableStore
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import MAX_WATERMARK
from prectr.stream.records import decode_page

if TYPE_CHECKING:
    from prectr.stream.join.user_state import UserState

_KEY: Final = b"p"
_AFTER_LAST_KEY: Final = _KEY + b"\xff" * 9


class PendingPage(msgspec.Struct, gc=False):
    """A page that still accepts clicks.

    Attributes:
        pending_id: number of the page among the task's pending pages and clicks.
        closes_at: close time in ms.
        encoded_page: the event as msgpack.
        content_hash: of the event before missing relevance levels were filled in.
        query: normalised.
        levels, labels: one byte per item.
        joined_clicks: (ts, item_id, encoded `QueryClick`) of each joined click.
        dirty: whether the page has changed since it was last stored.
        stored: whether the store has an entry for it.
    """

    pending_id: int
    closes_at: int
    event: ResultPage
    encoded_page: bytes
    content_hash: bytes
    query: str
    user: "UserState"
    levels: bytes
    labels: bytearray
    joined_clicks: list[tuple[int, str, bytes]] = []
    dirty: bool = True
    stored: bool = False


class _StoredPendingPage(msgspec.Struct, array_like=True, gc=False):
    """A pending page's entry in the store; what can be computed from it is left out."""

    closes_at: int
    labels: bytes
    joined_clicks: list[tuple[int, str, bytes]]
    content_hash: bytes
    encoded_page: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_stored_page = msgspec.msgpack.Decoder(_StoredPendingPage).decode


class PendingPages:
    """A task's pending pages, by id and by close time. All of them are in memory."""

    __slots__ = ("_by_id", "_close_queue", "_deleted_keys", "_dirty", "_discarded")

    def __init__(self, store: ReadableStore, get_user: Callable[[str], "UserState"]) -> None:
        """Restore the pages that the store holds; `get_user` returns the user of a page."""
        self._by_id: dict[int, PendingPage] = {}
        self._close_queue: list[tuple[int, str, str, PendingPage]] = []
        self._dirty: dict[int, PendingPage] = {}
        self._deleted_keys: list[bytes] = []
        self._discarded: set[int] = set()
        for page in _read_pages(store, get_user):
            page.user.add_pending_page(page)
            self._by_id[page.pending_id] = page
            self._close_queue.append((page.closes_at, page.event.request_id, page.event.user_id, page))
        heapify(self._close_queue)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def next_close(self) -> int:
        """The earliest close time in ms; `MAX_WATERMARK` without pending pages."""
        return self._close_queue[0][0] if self._close_queue else MAX_WATERMARK

    def get(self, pending_id: int) -> PendingPage | None:
        """Return the page with this id if it is still pending."""
        return self._by_id.get(pending_id)

    def add(self, page: PendingPage) -> None:
        """Add a new page."""
        event = page.event
        self._by_id[page.pending_id] = self._dirty[page.pending_id] = page
        page.user.add_pending_page(page)
        heappush(self._close_queue, (page.closes_at, event.request_id, event.user_id, page))

    def mark_dirty(self, page: PendingPage) -> None:
        """Have a changed page stored with the next changes."""
        page.dirty = True
        self._dirty[page.pending_id] = page

    def pop_closed(self, watermark: int) -> Iterator[PendingPage]:
        """Remove and yield the pages that close up to `watermark`, in the order (close time, request_id, user_id)."""
        queue = self._close_queue
        while queue and queue[0][0] <= watermark:
            page = heappop(queue)[3]
            if self._discarded:
                self._drop_discarded()
            self._remove(page)
            yield page

    def discard(self, page: PendingPage) -> None:
        """Remove a page before it closes."""
        self._remove(page)
        self._discarded.add(page.pending_id)
        if 2 * len(self._discarded) > len(self._close_queue):
            # Once for many: a page that is years ahead would otherwise stay in memory.
            self._close_queue = [entry for entry in self._close_queue if entry[3].pending_id in self._by_id]
            heapify(self._close_queue)
            self._discarded.clear()
        self._drop_discarded()

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call."""
        changes: dict[bytes, bytes | None] = {}
        for pending_id, page in self._dirty.items():
            changes[_key(pending_id)] = _encode(
                _StoredPendingPage(
                    page.closes_at, bytes(page.labels), page.joined_clicks, page.content_hash, page.encoded_page
                )
            )
            page.dirty, page.stored = False, True
        self._dirty.clear()
        changes.update(dict.fromkeys(self._deleted_keys))
        self._deleted_keys.clear()
        return changes

    def _drop_discarded(self) -> None:
        """Drop the discarded pages that would close next, so that the first entry is a page that is pending."""
        queue, discarded = self._close_queue, self._discarded
        while discarded and queue[0][3].pending_id in discarded:
            discarded.remove(heappop(queue)[3].pending_id)

    def _remove(self, page: PendingPage) -> None:
        del page.user.pending_pages[page.event.request_id]
        del self._by_id[page.pending_id]
        self._dirty.pop(page.pending_id, None)
        if page.stored:
            self._deleted_keys.append(_key(page.pending_id))


def _key(pending_id: int) -> bytes:
    return _KEY + pending_id.to_bytes(8, "big")


def _read_pages(store: ReadableStore, get_user: Callable[[str], "UserState"]) -> Iterator[PendingPage]:
    """Read all pending pages in the order of their ids."""
    for key, value in store.scan(_KEY, _AFTER_LAST_KEY):
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
