"""What the `sessions` stage keeps about one user."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from prectr.state.aggregates import NO_COUNTS, LevelCounts, add_counts
from prectr.state.rings import encode_array
from prectr.stream.events.contract import Impression

_encode = msgspec.msgpack.Encoder().encode

NEVER: Final = -1
"""The time of the last update of an entry that holds nothing."""

HistoryEntry = tuple[int, str, str, bytes]
"""(ts, request_id, item_id, the encoded `UserClick`): in the history's order."""


class OpenPage(msgspec.Struct, gc=False):
    """A page that still takes clicks. Times in ms; `labels` and `levels` have one byte an item.

    page: the event, encoded; hash: of its content before levels were filled in. clicked: (ts, item_id, encoded
    `QueryClick`) of its joined clicks. stored, dirty: whether the store has it, and whether as it is.
    """

    number: int
    closes_at: int
    event: Impression
    page: bytes
    hash: bytes
    query: str
    user: "User"
    levels: bytes
    labels: bytearray
    clicked: list[tuple[int, str, bytes]] = []
    dirty: bool = True
    stored: bool = False


class UserEntry(msgspec.Struct, array_like=True, gc=False):
    """A user's entry in the store.

    updated: event time of the last update. folded: joined clicks no longer in `clicks`. clicks: in the history's
    order. totals: of closed pages folded in. pending: (effective close, counts) of closed pages not folded in yet,
    oldest first. closed: request_id to (effective close, content hash) of the pages remembered, oldest first.
    """

    updated: int = NEVER
    folded: int = 0
    totals: LevelCounts = NO_COUNTS
    clicks: list[HistoryEntry] = []
    pending: list[tuple[int, LevelCounts]] = []
    closed: dict[str, tuple[int, bytes]] = {}


_decode = msgspec.msgpack.Decoder(UserEntry).decode


class User:
    """One user in memory: the entry, and the open pages by request_id (kept under keys of their own)."""

    __slots__ = ("dirty", "entry", "open", "waiting")

    def __init__(self, stored: bytes | None) -> None:
        self.entry = UserEntry() if stored is None else _decode(stored)
        self.open: dict[str, OpenPage] = {}
        self.waiting: dict[str, list[Any]] = {}
        self.dirty = False

    def encoded(self, watermark: int, memory: int) -> bytes:
        """The entry as stored, without the closed ids whose time of `memory` ms has passed."""
        entry = self.entry
        forgotten = []
        for request_id, (closes_at, _) in entry.closed.items():
            if closes_at + memory > watermark:
                break
            forgotten.append(request_id)
        for request_id in forgotten:
            del entry.closed[request_id]
        return _encode(entry)

    def expire(self, ts: int, time_to_live: int) -> None:
        """Forget everything where a record at `ts` finds the entry too old; clicks not older than `ts` are news."""
        if self.entry.updated != NEVER and ts - self.entry.updated > time_to_live:
            self.entry = UserEntry(clicks=self.entry.clicks[bisect_left(self.entry.clicks, (ts,)) :])

    def closed_page(self, request_id: str, watermark: int, memory: int) -> bytes | None:
        """Content hash of the closed page with this id, or None where none is remembered."""
        closed = self.entry.closed.get(request_id)
        return closed[1] if closed is not None and closed[0] + memory > watermark else None

    def add_click(self, click: HistoryEntry, keep: int) -> None:
        """Put a joined click in its place; fold away what no open page can ask for.

        When the entry was last updated is the caller's to say: a click from a clock that is ahead is no update yet.
        """
        entry = self.entry
        if entry.clicks and click < entry.clicks[-1]:
            insort(entry.clicks, click)
        else:
            entry.clicks.append(click)
        self.fold_clicks(keep)

    def touch(self, ts: int) -> None:
        """Note an update of the entry."""
        if ts > self.entry.updated:
            self.entry.updated = ts

    def fold_clicks(self, keep: int) -> None:
        """Keep every click not older than the oldest open page, and the `keep` before those."""
        clicks = self.entry.clicks
        if len(clicks) <= keep:
            return
        if self.open:
            oldest = min(page.event.ts for page in self.open.values())
            excess = bisect_left(clicks, (oldest,)) - keep
        else:
            excess = len(clicks) - keep
        if excess > 0:
            del clicks[:excess]
            self.entry.folded += excess

    def activity_at(self, ts: int, last: int) -> tuple[int, bytes]:
        """Joined clicks with a smaller ts: how many, and the `last` of them as a msgpack array of `UserClick`."""
        clicks = self.entry.clicks
        before = bisect_left(clicks, (ts,))
        return self.entry.folded + before, encode_clicks(clicks[max(0, before - last) : before])

    def fold_pages(self, ts: int) -> LevelCounts:
        """Impressions and clicks by level with every page folded in whose effective close is ≤ ts."""
        entry = self.entry
        pending = entry.pending
        if pending and pending[0][0] <= ts:
            folded = 0
            for closes_at, counts in pending:
                if closes_at > ts:
                    break
                entry.totals = add_counts(entry.totals, counts)
                folded += 1
            del pending[:folded]
        return entry.totals

    def close(self, page: OpenPage, counts: LevelCounts, keep: int) -> None:
        """Take a page's counts and remember its id."""
        entry = self.entry
        entry.pending.append((page.closes_at, counts))
        # Taken out first, so that an id that was forgotten and came again stands last.
        entry.closed.pop(page.event.request_id, None)
        entry.closed[page.event.request_id] = (page.closes_at, page.hash)
        self.touch(max((page.event.ts, *(click[0] for click in page.clicked))))
        self.fold_clicks(keep)


def encode_clicks(clicks: Sequence[HistoryEntry]) -> bytes:
    """A msgpack array of `UserClick`."""
    return encode_array([click[3] for click in clicks])
