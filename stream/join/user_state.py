"""What the `sessions` stage keeps about one user."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from prectr.state.aggregates import NO_COUNTS, LevelCounts, add_counts
from prectr.state.rings import encode_array
from prectr.stream.events.contract import ResultPage

_encode = msgspec.msgpack.Encoder().encode

NEVER_UPDATED: Final = -1
"""The time of the last update of an entry that holds nothing."""

HistoryEntry = tuple[int, str, str, bytes]
"""(ts, request_id, item_id, the encoded `UserClick`): in the history's order."""


class PendingPage(msgspec.Struct, gc=False):
    """A page that still takes clicks. Times in ms; `labels` and `levels` have one byte an item.

    page: the event, encoded; hash: of its content before levels were filled in. clicked: (ts, item_id, encoded
    `QueryClick`) of its joined clicks. stored, dirty: whether the store has it, and whether as it is.
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


class StoredUser(msgspec.Struct, array_like=True, gc=False):
    """A user's entry in the store.

    updated: event time of the last update. folded: joined clicks no longer in `clicks`. clicks: in the history's
    order. totals: of closed pages folded in. pending: (effective close, counts) of closed pages not folded in yet,
    oldest first. closed: request_id to (effective close, content hash) of the pages remembered, oldest first.
    """

    updated_at: int = NEVER_UPDATED
    evicted_clicks: int = 0
    totals: LevelCounts = NO_COUNTS
    clicks: list[HistoryEntry] = []
    unapplied_pages: list[tuple[int, LevelCounts]] = []
    closed_pages: dict[str, tuple[int, bytes]] = {}


_decode = msgspec.msgpack.Decoder(StoredUser).decode


class UserState:
    """One user in memory: the entry, and the open pages by request_id (kept under keys of their own)."""

    __slots__ = ("dirty", "entry", "pending_clicks", "pending_pages")

    def __init__(self, stored: bytes | None) -> None:
        self.entry = StoredUser() if stored is None else _decode(stored)
        self.pending_pages: dict[str, PendingPage] = {}
        self.pending_clicks: dict[str, list[Any]] = {}
        self.dirty = False

    def encode(self, watermark: int, dedup_retention: int) -> bytes:
        """The entry as stored, without the closed ids whose time of `memory` ms has passed."""
        entry = self.entry
        expired_ids = []
        for request_id, (closes_at, _) in entry.closed_pages.items():
            if closes_at + dedup_retention > watermark:
                break
            expired_ids.append(request_id)
        for request_id in expired_ids:
            del entry.closed_pages[request_id]
        return _encode(entry)

    def expire(self, ts: int, time_to_live: int) -> None:
        """Forget everything where a record at `ts` finds the entry too old; clicks not older than `ts` are news."""
        if self.entry.updated_at != NEVER_UPDATED and ts - self.entry.updated_at > time_to_live:
            self.entry = StoredUser(clicks=self.entry.clicks[bisect_left(self.entry.clicks, (ts,)) :])

    def closed_page_hash(self, request_id: str, watermark: int, dedup_retention: int) -> bytes | None:
        """Content hash of the closed page with this id, or None where none is remembered."""
        closed = self.entry.closed_pages.get(request_id)
        return closed[1] if closed is not None and closed[0] + dedup_retention > watermark else None

    def add_click(self, click: HistoryEntry, keep: int) -> None:
        """Put a joined click in its place; fold away what no open page can ask for.

        When the entry was last updated is the caller's to say: a click from a clock that is ahead is no update yet.
        """
        entry = self.entry
        if entry.clicks and click < entry.clicks[-1]:
            insort(entry.clicks, click)
        else:
            entry.clicks.append(click)
        self.evict_clicks(keep)

    def mark_updated(self, ts: int) -> None:
        """Note an update of the entry."""
        if ts > self.entry.updated_at:
            self.entry.updated_at = ts

    def evict_clicks(self, keep: int) -> None:
        """Keep every click not older than the oldest open page, and the `keep` before those."""
        clicks = self.entry.clicks
        if len(clicks) <= keep:
            return
        if self.pending_pages:
            oldest = min(page.event.ts for page in self.pending_pages.values())
            excess = bisect_left(clicks, (oldest,)) - keep
        else:
            excess = len(clicks) - keep
        if excess > 0:
            del clicks[:excess]
            self.entry.evicted_clicks += excess

    def activity_at(self, ts: int, limit: int) -> tuple[int, bytes]:
        """Joined clicks with a smaller ts: how many, and the `last` of them as a msgpack array of `UserClick`."""
        clicks = self.entry.clicks
        before = bisect_left(clicks, (ts,))
        return self.entry.evicted_clicks + before, encode_clicks(clicks[max(0, before - limit) : before])

    def apply_closed_pages(self, ts: int) -> LevelCounts:
        """Impressions and clicks by level with every page folded in whose effective close is ≤ ts."""
        entry = self.entry
        unapplied = entry.unapplied_pages
        if unapplied and unapplied[0][0] <= ts:
            applied = 0
            for closes_at, counts in unapplied:
                if closes_at > ts:
                    break
                entry.totals = add_counts(entry.totals, counts)
                applied += 1
            del unapplied[:applied]
        return entry.totals

    def add_closed_page(self, page: PendingPage, counts: LevelCounts, keep: int) -> None:
        """Take a page's counts and remember its id."""
        entry = self.entry
        entry.unapplied_pages.append((page.closes_at, counts))
        # Taken out first, so that an id that was forgotten and came again stands last.
        entry.closed_pages.pop(page.event.request_id, None)
        entry.closed_pages[page.event.request_id] = (page.closes_at, page.content_hash)
        self.mark_updated(max((page.event.ts, *(click[0] for click in page.joined_clicks))))
        self.evict_clicks(keep)


def encode_clicks(clicks: Sequence[HistoryEntry]) -> bytes:
    """A msgpack array of `UserClick`."""
    return encode_array([click[3] for click in clicks])
