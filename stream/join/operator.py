"""Stage `join`: attributes clicks to pages, by user, and adds the user's state as of the page's time.

A pure function of (records in offset order, state): it reads no clock. The outputs do not depend on how the records
are grouped into micro-batches.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256 as _sha256
from typing import Final

import msgspec

from prectr.state.aggregates import count_levels
from prectr.state.store import ReadableStore
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Click, InvalidEvent, ResultPage
from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.conflicting_page import describe_conflict
from prectr.stream.join.event_clock import MAX_WATERMARK, EventClock
from prectr.stream.join.future_events import FutureEvents
from prectr.stream.join.pending_clicks import PendingClick, PendingClicks
from prectr.stream.join.pending_pages import PendingPage, PendingPages
from prectr.stream.join.state import META_KEY, JoinMeta, encode_meta, read_meta
from prectr.stream.join.user_cache import UserCache
from prectr.stream.records import JoinedPage

CHUNK_LINES: Final = 512
"""Lines to decode and process at a time, so that decoded events are still in the CPU cache when they are joined."""
# Maps are sorted by key, so that equal content has equal bytes; the fields of a struct keep their order.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class RejectedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record for the dead letters. `reason` is a short code, used as a metric label; `detail` a sentence."""

    value: bytes
    offset: int
    reason: str
    detail: str


def future_timestamp(value: bytes, offset: int, ts: int, lead: int) -> RejectedRecord:
    """Return the rejected record of an event that the stream has not come to. ts, lead: in ms."""
    detail = (
        f"event time {ts} is {lead / 3_600_000:.1f} h ahead of the other events of its partition, more than "
        "max_clock_skew allows"
    )
    return RejectedRecord(value, offset, "future_timestamp", detail)


class Join:
    """One task of the stage. Call `process`, then write `drain_changes` to the store in one batch.

    Pending pages, pending clicks and their users stay in memory (bounded by the attribution window times the rate);
    every other user is read from the store per micro-batch and evicted after it.
    """

    def __init__(self, config: PipelineConfig, store: ReadableStore, label: Callable[[str, ResultPage], None]) -> None:
        """Restore the task from `store`. `label` fills in missing relevance levels in place."""
        self._attribution_window = round(config.attribution_window * 1000)
        self._dedup_retention = round(config.dedup_retention * 1000)
        self._click_actions = frozenset(config.click_actions)
        self._history_clicks = config.history_clicks
        self._time_to_live = round(config.user_ttl * 1000)
        self._label = label
        meta = read_meta(store)
        self.next_offset = meta.next_offset
        self.outcomes = meta.outcomes
        self._next_pending_id = meta.next_pending_id
        self._clock = EventClock(
            round(config.allowed_lateness * 1000),
            round(config.max_clock_skew * 1000),
            meta.clock,
        )
        self._future_events = FutureEvents(store, self._clock)
        self._users = UserCache(store)
        self._pending_pages = PendingPages(store, self._users.get)
        self._pending_clicks = PendingClicks(store, self._users.get, self._attribution_window)
        self._next_timer = self._earliest_timer()

    @property
    def watermark(self) -> int:
        """Every page emitted from now on has a close time after this (ms)."""
        return self._clock.watermark

    def future_events(self) -> tuple[int, int]:
        """Return how many pages and waiting clicks are ahead of the clock now, and by how much at most, in ms."""
        return self._future_events.ahead_now()

    @property
    def next_close(self) -> int:
        """The earliest close time of the pending pages (ms); `MAX_WATERMARK` if there are none."""
        return self._pending_pages.next_close

    def process(self, batch: EventBatch, next_offset: int) -> tuple[list[JoinedPage], list[RejectedRecord]]:
        """Process the records in their order.

        Args:
            next_offset: offset of the record after the last one of the batch.

        Returns:
            The pages that closed, in the order (close time, request_id, user_id), and the rejected records.
        """
        resident = self._users.resident
        # Tested one by one: the difference of a set and the keys would visit all resident users.
        self._users.load(
            {
                event.user_id
                for event in batch.events
                if not isinstance(event, InvalidEvent) and event.user_id not in resident
            }
        )
        joined_pages: list[JoinedPage] = []
        rejected: list[RejectedRecord] = []
        clock = self._clock
        observe, on_click, on_page = clock.observe, self._on_click, self._on_page
        close_page, pop_closed, future_events = self._close_page, self._pending_pages.pop_closed, self._future_events
        for event, line, offset in zip(batch.events, batch.lines, batch.offsets, strict=True):
            if isinstance(event, InvalidEvent):
                self._count_invalid_event(event)
                rejected.append(RejectedRecord(line, offset, event.reason, event.detail))
                continue
            is_future = observe(event.ts, event.user_id)
            watermark = clock.watermark
            if watermark >= self._next_timer:
                if future_events:
                    rejected += self._expire_future_events()
                joined_pages += map(close_page, pop_closed(watermark))
                self._expire_clicks(watermark)
                self._next_timer = self._earliest_timer()
            pending_id = self._next_pending_id
            if isinstance(event, Click):
                on_click(event, watermark)
            elif (conflict := on_page(event, watermark)) is not None:
                rejected.append(RejectedRecord(line, offset, "conflicting_page", conflict))
            if is_future:
                if self._next_pending_id != pending_id:
                    self._future_events.add(pending_id, event.ts, offset, line)
                self._next_timer = self._earliest_timer()
        self.next_offset = next_offset
        return joined_pages, rejected

    def flush(self) -> list[JoinedPage]:
        """End the log: close every pending page and count the remaining pending clicks as orphans."""
        joined_pages = [self._close_page(page) for page in self._pending_pages.pop_closed(MAX_WATERMARK)]
        self._expire_clicks(MAX_WATERMARK)
        self._future_events.clear()
        self._next_timer = self._earliest_timer()
        return joined_pages

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call, including the next offset."""
        changes = self._users.drain_changes(self.watermark, self._dedup_retention)
        changes |= self._pending_pages.drain_changes()
        changes |= self._pending_clicks.drain_changes()
        changes |= self._future_events.drain_changes()
        changes[META_KEY] = encode_meta(
            JoinMeta(
                self.next_offset,
                self._clock.state(),
                self._next_pending_id,
                self.outcomes,
            )
        )
        return changes

    # --- one record ---------------------------------------------------------------------------------------------

    def _on_page(self, event: ResultPage, watermark: int) -> str | None:
        """Open a page and join the clicks that waited for it; a page without items has advanced the clock, no more.

        Returns:
            Why the page is a dead letter, if it is: a page with its request_id and other content came before.
        """
        request_id = event.request_id
        users = self._users
        user = users.resident[event.user_id]
        outcomes = self.outcomes.pages
        outcomes.received += 1
        if not event.items:
            outcomes.empty += 1
            return None
        encoded = _encode(event)
        digest = _sha256(encoded).digest()[:16]
        known = user.pending_pages.get(request_id)
        known_hash = (
            known.content_hash
            if known is not None
            else user.closed_page_hash(request_id, watermark, self._dedup_retention)
        )
        if known_hash is not None:
            if known_hash == digest:
                outcomes.duplicate += 1
                return None
            outcomes.dead_letter += 1
            return describe_conflict(None if known is None else known.event, event)
        query = normalise_query(event.query)
        levels = [item.relevance for item in event.items]
        if None in levels:
            self._label(query, event)
            encoded = _encode(event)
            levels = [item.relevance for item in event.items]
        closes_at = event.ts + self._attribution_window
        if closes_at <= watermark:
            closes_at = watermark + 1
        pending_id = self._allocate_pending_id()
        level_bytes = bytes(levels)  # type: ignore[arg-type]  # there is no None left
        page = PendingPage(
            pending_id, closes_at, event, encoded, digest, query, user, level_bytes, bytearray(len(level_bytes))
        )
        self._pending_pages.add(page)
        users.accessed[event.user_id] = user
        if closes_at < self._next_timer:
            self._next_timer = closes_at
        outcomes.open += 1
        for pending_click in list(user.pending_clicks.get(request_id, ())):
            self._remove_pending_click(pending_click)
            self._join_click(pending_click.click, page)
        return None

    def _on_click(self, click: Click, watermark: int) -> None:
        self.outcomes.clicks.received += 1
        if click.action not in self._click_actions:
            self.outcomes.clicks.other_action += 1
            return
        user = self._users.resident[click.user_id]
        page = user.pending_pages.get(click.request_id)
        if page is not None:
            self._join_click(click, page)
        elif (
            user.entry.closed_pages
            and user.closed_page_hash(click.request_id, watermark, self._dedup_retention) is not None
        ):
            self.outcomes.clicks.late += 1
        else:
            expires_at = click.ts + self._attribution_window
            if expires_at <= watermark:
                self.outcomes.clicks.orphan += 1
                return
            pending_click = PendingClick(self._allocate_pending_id(), click)
            self._pending_clicks.add(pending_click, user)
            self._users.accessed[click.user_id] = user
            if expires_at < self._next_timer:
                self._next_timer = expires_at
            self.outcomes.clicks.waiting += 1

    def _join_click(self, click: Click, page: PendingPage) -> None:
        """Join a click to its pending page, unless it is foreign, a duplicate or late."""
        outcomes = self.outcomes.clicks
        item_id, request_id, ts = click.item_id, click.request_id, click.ts
        index = 0
        for item in page.event.items:
            if item.item_id == item_id:
                break
            index += 1
        else:
            outcomes.foreign += 1
            return
        if page.labels[index]:
            outcomes.duplicate += 1
            return
        if ts > page.event.ts + self._attribution_window:
            outcomes.late += 1
            return
        outcomes.joined += 1
        page.labels[index] = 1
        if not page.dirty:
            self._pending_pages.mark_dirty(page)
        user = page.user
        level = page.levels[index]
        page.joined_clicks.append((ts, item_id, _encode((ts, item_id, level, item.category, item.brand, item.price))))
        if not self._clock.is_ahead(ts):
            user.expire(ts, self._time_to_live)
            user.mark_updated(ts)
        item_fields = (item.title, level, item.category, item.brand, item.price)
        user.add_click(
            (ts, request_id, item_id, _encode((ts, request_id, item_id, page.query, *item_fields))),
            self._history_clicks,
        )
        user.dirty = True
        self._users.accessed[click.user_id] = user

    def _count_invalid_event(self, event: InvalidEvent) -> None:
        if event.kind == "impression":
            self.outcomes.pages.received += 1
            self.outcomes.pages.dead_letter += 1
        elif event.kind == "click":
            self.outcomes.clicks.received += 1
            self.outcomes.clicks.dead_letter += 1
        else:
            self.outcomes.unreadable += 1

    def _allocate_pending_id(self) -> int:
        pending_id = self._next_pending_id
        self._next_pending_id = pending_id + 1
        return pending_id

    # --- timers -------------------------------------------------------------------------------------------------

    def _earliest_timer(self) -> int:
        timer = min(self._pending_pages.next_close, self._pending_clicks.next_expiry)
        if self._future_events:
            return min(timer, self._clock.watermark_at(self._future_events.next_expiry))
        return timer

    def _close_page(self, page: PendingPage) -> JoinedPage:
        """Return a closed page, whose labels are final, with its user's state as of the page's ts."""
        user, event = page.user, page.event
        ts = event.ts
        user.dirty = True
        self._users.accessed[event.user_id] = user
        user.expire(ts, self._time_to_live)
        stats = user.apply_closed_pages(ts)
        activity, history = user.activity_at(ts, self._history_clicks)
        labels = bytes(page.labels)
        counts = count_levels(page.levels, labels)
        user.add_closed_page(page, counts, self._history_clicks)
        if len(page.joined_clicks) > 1:
            page.joined_clicks.sort()
        outcomes = self.outcomes.pages
        outcomes.open -= 1
        outcomes.emitted += 1
        return JoinedPage(
            page.closes_at,
            event.request_id,
            event.user_id,
            ts,
            page.query,
            labels,
            page.levels,
            counts,
            activity,
            stats,
            msgspec.Raw(history),
            msgspec.Raw(page.encoded_page),
            tuple([click[2] for click in page.joined_clicks]),
        )

    def _expire_clicks(self, watermark: int) -> None:
        """Count the pending clicks whose page did not arrive in time as orphans."""
        while (pending_click := self._pending_clicks.pop_expired(watermark)) is not None:
            self._remove_pending_click(pending_click)
            self.outcomes.clicks.orphan += 1

    def _remove_pending_click(self, pending_click: PendingClick) -> None:
        user_id = pending_click.click.user_id
        user = self._users.resident[user_id]
        self._pending_clicks.remove(pending_click, user)
        self._users.accessed[user_id] = user
        self.outcomes.clicks.waiting -= 1

    def _expire_future_events(self) -> Iterator[RejectedRecord]:
        """Reject the pages and pending clicks that the stream has not come to within the allowed skew."""
        for event in self._future_events.pop_expired():
            rejected = future_timestamp(event.value, event.offset, event.ts, self._clock.lead(event.ts))
            page = self._pending_pages.get(event.pending_id)
            if page is not None:
                self._pending_pages.discard(page)
                page.user.dirty = True
                self._users.accessed[page.event.user_id] = page.user
                page.user.evict_clicks(self._history_clicks)
                self.outcomes.pages.open -= 1
                self.outcomes.pages.dead_letter += 1
                yield rejected
            pending_click = self._pending_clicks.get(event.pending_id)
            if pending_click is not None:
                self._remove_pending_click(pending_click)
                self._pending_clicks.drop_timers()
                self.outcomes.clicks.dead_letter += 1
                yield rejected
