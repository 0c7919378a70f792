"""The state of one user in stage `join`: click history, impressions and clicks by level, closed page ids."""

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import Final

import msgspec

from prectr.state.aggregates import NEVER_UPDATED, NO_COUNTS, LevelCounts, add_counts
from prectr.state.encoding import encode_array
from prectr.stream.join.pending_clicks import PendingClick
from prectr.stream.join.pending_pages import PendingPage

_FEW_PAGES: Final = 8
"""Of so many pending pages, the oldest is searched for one by one."""

HistoryEntry = tuple[int, str, str, bytes]
"""(ts, request_id, item_id, encoded `UserClick`); sorts in the order of the history."""


class StoredUser(msgspec.Struct, array_like=True, gc=False):
    """A user's entry in the store. Times in ms.

    Attributes:
        updated_at: event time of the last update.
        evicted_clicks: number of joined clicks that are no longer in `clicks`.
        totals: impressions and clicks by level of the closed pages applied so far.
        clicks: in the order of the history.
        unapplied_pages: (close time, counts) of closed pages not yet in `totals`, oldest first.
        closed_pages: request_id to (close time, content hash) of recently closed pages, oldest first.
    """

    updated_at: int = NEVER_UPDATED
    evicted_clicks: int = 0
    totals: LevelCounts = NO_COUNTS
    clicks: list[HistoryEntry] = []
    unapplied_pages: list[tuple[int, LevelCounts]] = []
    closed_pages: dict[str, tuple[int, bytes]] = {}


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(StoredUser).decode


class UserState:
    """One user in memory: the stored entry, and pending pages and clicks by request_id (stored separately)."""

    __slots__ = ("_page_times", "dirty", "entry", "pending_clicks", "pending_pages")

    def __init__(self, stored: bytes | None) -> None:
        self.entry = StoredUser() if stored is None else _decode(stored)
        self.pending_pages: dict[str, PendingPage] = {}
        # A heap with an entry of every pending page, and of some closed ones; None while the pending pages are few.
        self._page_times: list[tuple[int, str]] | None = None
        self.pending_clicks: dict[str, list[PendingClick]] = {}
        self.dirty = False

    def add_pending_page(self, page: PendingPage) -> None:
        """Add a page; it is removed from `pending_pages`."""
        self.pending_pages[page.event.request_id] = page
        if self._page_times is not None:
            heappush(self._page_times, (page.event.ts, page.event.request_id))

    def encode(self, watermark: int, dedup_retention: int) -> bytes:
        """Encode the entry, without the page ids closed more than `dedup_retention` ms before the watermark."""
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
        """Reset the entry if a record at `ts` finds it older than its time to live (both ms).

        Clicks at or after `ts` are kept: they are newer than the record.
        """
        if self.entry.updated_at != NEVER_UPDATED and ts - self.entry.updated_at > time_to_live:
            self.entry = StoredUser(clicks=self.entry.clicks[bisect_left(self.entry.clicks, (ts,)) :])

    def closed_page_hash(self, request_id: str, watermark: int, dedup_retention: int) -> bytes | None:
        """Return the content hash of a recently closed page; None if its id is not remembered."""
        closed = self.entry.closed_pages.get(request_id)
        return closed[1] if closed is not None and closed[0] + dedup_retention > watermark else None

    def add_click(self, click: HistoryEntry, keep: int) -> None:
        """Insert a joined click into the history and evict those that no pending page can need.

        The caller decides whether the click counts as an update: one with a future timestamp does not yet.
        """
        entry = self.entry
        if entry.clicks and click < entry.clicks[-1]:
            insort(entry.clicks, click)
        else:
            entry.clicks.append(click)
        self.evict_clicks(keep)

    def mark_updated(self, ts: int) -> None:
        """Record an update of the entry at `ts` (ms)."""
        if ts > self.entry.updated_at:
            self.entry.updated_at = ts

    def evict_clicks(self, keep: int) -> None:
        """Keep the clicks not older than the oldest pending page and the `keep` clicks before those."""
        clicks = self.entry.clicks
        if len(clicks) <= keep:
            return
        if self.pending_pages:
            excess = bisect_left(clicks, (self._oldest_pending_time(),)) - keep
        else:
            excess = len(clicks) - keep
        if excess > 0:
            del clicks[:excess]
            self.entry.evicted_clicks += excess

    def _oldest_pending_time(self) -> int:
        """The ts of the oldest pending page, of which there is at least one."""
        times, pages = self._page_times, self.pending_pages
        if len(pages) <= _FEW_PAGES:
            self._page_times = None
            return min(page.event.ts for page in pages.values())
        if times is None:
            times = self._page_times = sorted((page.event.ts, request_id) for request_id, page in pages.items())
        while (page := pages.get(times[0][1])) is None or page.event.ts != times[0][0]:
            heappop(times)
        if len(times) > 2 * len(pages) + 64:
            # Entries of pages that were years ahead would never come to the front.
            times[:] = sorted((page.event.ts, request_id) for request_id, page in pages.items())
        return times[0][0]

    def activity_at(self, ts: int, limit: int) -> tuple[int, bytes]:
        """Return the number of joined clicks before `ts`, and the last `limit` of them as a msgpack array."""
        clicks = self.entry.clicks
        before = bisect_left(clicks, (ts,))
        history = encode_array([click[3] for click in clicks[max(0, before - limit) : before]])
        return self.entry.evicted_clicks + before, history

    def apply_closed_pages(self, ts: int) -> LevelCounts:
        """Apply every page with a close time up to `ts`; return impressions and clicks by level."""
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
        """Queue the counts of a closed page, remember its id and evict clicks."""
        entry = self.entry
        entry.unapplied_pages.append((page.closes_at, counts))
        # Removed first, so that an id that expired and came again is the last one.
        entry.closed_pages.pop(page.event.request_id, None)
        entry.closed_pages[page.event.request_id] = (page.closes_at, page.content_hash)
        self.mark_updated(max((page.event.ts, *(click[0] for click in page.joined_clicks))))
        self.evict_clicks(keep)
