"""Pending clicks: clicks that arrived before their page."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

import msgspec

from prectr.state.store import ReadableStore
from prectr.stream.events.contract import Click
from prectr.stream.join.event_clock import MAX_WATERMARK

if TYPE_CHECKING:
    from prectr.stream.join.user_state import UserState

_KEY: Final = b"w"
_AFTER_LAST_KEY: Final = _KEY + b"\xff" * 9


class PendingClick(msgspec.Struct, array_like=True, gc=False):
    """A click whose page has not arrived; `pending_id` numbers the task's pending pages and clicks."""

    pending_id: int
    click: Click


_encode = msgspec.msgpack.Encoder().encode
_decode_pending_click = msgspec.msgpack.Decoder(PendingClick).decode


class PendingClicks:
    """A task's pending clicks, by id and by the time at which they expire: their ts plus the attribution window."""

    __slots__ = ("_attribution_window", "_by_id", "_deleted_keys", "_timers", "_unwritten")

    def __init__(self, store: ReadableStore, get_user: Callable[[str], "UserState"], attribution_window: int) -> None:
        """Restore the clicks that the store holds; `get_user` returns the user of a click. attribution_window: ms."""
        self._attribution_window = attribution_window
        self._by_id: dict[int, PendingClick] = {}
        self._timers: list[tuple[int, int]] = []
        self._unwritten: dict[int, PendingClick] = {}
        self._deleted_keys: list[bytes] = []
        for _, value in store.scan(_KEY, _AFTER_LAST_KEY):
            pending = _decode_pending_click(value)
            click = pending.click
            get_user(click.user_id).pending_clicks.setdefault(click.request_id, []).append(pending)
            self._by_id[pending.pending_id] = pending
            self._timers.append((click.ts + attribution_window, pending.pending_id))
        heapify(self._timers)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def next_expiry(self) -> int:
        """The earliest watermark in ms at which a click may expire; `MAX_WATERMARK` without pending clicks."""
        return self._timers[0][0] if self._timers else MAX_WATERMARK

    def get(self, pending_id: int) -> PendingClick | None:
        """Return the click with this id if it is still pending."""
        return self._by_id.get(pending_id)

    def add(self, pending: PendingClick, user: "UserState") -> None:
        """Add a click of `user`."""
        click = pending.click
        user.pending_clicks.setdefault(click.request_id, []).append(pending)
        self._by_id[pending.pending_id] = self._unwritten[pending.pending_id] = pending
        heappush(self._timers, (click.ts + self._attribution_window, pending.pending_id))

    def pop_expired(self, watermark: int) -> PendingClick | None:
        """Take the timer of the next click that expires by now; the caller removes the click."""
        timers = self._timers
        while timers and timers[0][0] <= watermark:
            pending = self._by_id.get(heappop(timers)[1])
            if pending is not None:
                return pending
        return None

    def remove(self, pending: PendingClick, user: "UserState") -> None:
        """Remove a click of `user`."""
        request_id = pending.click.request_id
        remaining = user.pending_clicks[request_id]
        remaining.remove(pending)
        if not remaining:
            del user.pending_clicks[request_id]
        del self._by_id[pending.pending_id]
        if self._unwritten.pop(pending.pending_id, None) is None:
            self._deleted_keys.append(_key(pending.pending_id))

    def drop_timers(self) -> None:
        """Drop the timers of removed clicks, whose time may be years ahead, once they are the larger part."""
        if len(self._timers) > 2 * len(self._by_id):
            self._timers = [timer for timer in self._timers if timer[1] in self._by_id]
            heapify(self._timers)

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call."""
        changes: dict[bytes, bytes | None] = {
            _key(pending_id): _encode(pending) for pending_id, pending in self._unwritten.items()
        }
        self._unwritten.clear()
        changes.update(dict.fromkeys(self._deleted_keys))
        self._deleted_keys.clear()
        return changes


def _key(pending_id: int) -> bytes:
    return _KEY + pending_id.to_bytes(8, "big")
