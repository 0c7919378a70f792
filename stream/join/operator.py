"""Stage `sessions`: joins clicks to pages, by user, and adds the user as of the page's time.

A pure function of (records in offset order, state): it reads no clock and keeps no order of its own. How the
records are cut into micro-batches never changes what it puts out.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256 as _sha256
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

import msgspec

from prectr.state.aggregates import count_levels
from prectr.state.store import ReadableStore
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Click, Event, InvalidEvent, ResultPage
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import MAX_WATERMARK, EventClock, FutureEvent
from prectr.stream.join.state import (
    META_KEY,
    JoinMeta,
    PendingClick,
    encode_meta,
    encode_pending_click,
    encode_pending_page,
    pending_click_key,
    pending_page_key,
    read_meta,
    read_pending_clicks,
    read_pending_pages,
    read_users,
    user_key,
)
from prectr.stream.join.user_state import PendingPage, UserState
from prectr.stream.records import JoinedPage

CHUNK_LINES: Final = 512
"""Lines to decode and judge at a time, so that events are still in the processor's cache when they are judged."""
_encode = msgspec.msgpack.Encoder().encode


class MicroBatch(NamedTuple):
    """Consecutive records of one partition: decoded, as bytes, and where they stood (ever rising)."""

    events: Sequence[Event | InvalidEvent]
    lines: Sequence[bytes]
    offsets: Sequence[int]


class RejectedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record for the dead letters: its bytes, its place, one word of reason and the detail."""

    value: bytes
    offset: int
    reason: str
    detail: str


class Join:
    """One task of the stage. Feed it with `process`; then write `take_changes` in one batch with the position.

    Open pages, waiting clicks and the users of open pages stay in memory (bounded by the attribution window times
    the rate); every other user is read from the store by the micro-batch and dropped after it.
    """

    def __init__(self, config: PipelineConfig, store: ReadableStore, label: Callable[[str, ResultPage], None]) -> None:
        """Take up the task where `store` left it. `label` fills missing relevance levels in place."""
        self._attribution_window = round(config.attribution_window * 1000)
        self._dedup_retention = round(config.dedup_retention * 1000)
        self._history_clicks = config.history_clicks
        self._time_to_live = round(config.user_ttl * 1000)
        self._store = store
        self._label = label
        self._users: dict[str, UserState] = {}
        self._accessed_users: dict[str, UserState] = {}
        self._close_queue: list[tuple[int, str, str, PendingPage]] = []
        self._pending_pages: dict[int, PendingPage] = {}
        self._dirty_pages: dict[int, PendingPage] = {}
        self._click_timers: list[tuple[int, int]] = []
        self._pending_clicks: dict[int, PendingClick] = {}
        self._new_pending_clicks: dict[int, PendingClick] = {}
        self._deleted_keys: set[bytes] = set()
        meta = read_meta(store)
        self.next_offset = meta.next_offset
        self.outcomes = meta.outcomes
        self._next_pending_id = meta.next_pending_id
        self._clock = EventClock(
            round(config.allowed_lateness * 1000),
            round(config.max_clock_skew * 1000),
            meta.max_event_time,
            meta.future_events,
        )
        self._restore_pending_pages()
        self._restore_pending_clicks()
        self._joined_pages: list[JoinedPage] = []
        self._rejected: list[RejectedRecord] = []
        self._next_timer = self._earliest_timer()

    @property
    def watermark(self) -> int:
        """No page with an effective close up to this will be put out after the ones that have been."""
        return self._clock.watermark

    @property
    def next_close(self) -> int:
        """The earliest effective close of the open pages; `END_OF_TIME` without any."""
        return self._close_queue[0][0] if self._close_queue else MAX_WATERMARK

    def process(self, batch: MicroBatch, next_offset: int) -> tuple[list[JoinedPage], list[RejectedRecord]]:
        """Judge the records in their order. `position`: of the record after the last.

        Returns the pages that closed, in the order (effective close, request_id, user_id), and the refused records.
        """
        self._load_users(batch.events)
        joined_pages: list[JoinedPage] = []
        rejected: list[RejectedRecord] = []
        self._joined_pages, self._rejected = joined_pages, rejected
        clock = self._clock
        observe, on_click, on_page = clock.observe, self._on_click, self._on_page
        for event, line, offset in zip(batch.events, batch.lines, batch.offsets, strict=True):
            if isinstance(event, InvalidEvent):
                self._on_invalid_event(event, line, offset)
                continue
            is_future = observe(event.ts, event.user_id)
            watermark = clock.watermark
            if watermark >= self._next_timer:
                self._on_watermark(watermark)
            future_event = clock.quarantine(event.ts, event.user_id, offset, line) if is_future else None
            if isinstance(event, Click):
                on_click(event, watermark, future_event)
            else:
                on_page(event, watermark, future_event, line, offset)
            if is_future:
                self._next_timer = self._earliest_timer()
        self.next_offset = next_offset
        return joined_pages, rejected

    def flush(self) -> list[JoinedPage]:
        """The log has ended for good: close every open page; what still waits for a page is orphan."""
        self._joined_pages = []
        while self._close_queue:
            self._close_page(heappop(self._close_queue)[3])
        for pending in list(self._pending_clicks.values()):
            self._orphan_click(pending)
        self._click_timers.clear()
        self._next_timer = self._earliest_timer()
        return self._joined_pages

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """What has changed since the last call, the position included; users without open pages leave the memory."""
        changes: dict[bytes, bytes | None] = {}
        watermark = self.watermark
        for user_id, user in self._accessed_users.items():
            if user.dirty:
                changes[user_key(user_id)] = user.encode(watermark, self._dedup_retention)
                user.dirty = False
            if not user.pending_pages and not user.pending_clicks:
                del self._users[user_id]
        self._accessed_users.clear()
        for pending_id, page in self._dirty_pages.items():
            changes[pending_page_key(pending_id)] = encode_pending_page(page)
            page.dirty, page.stored = False, True
        self._dirty_pages.clear()
        for pending_id, pending_click in self._new_pending_clicks.items():
            changes[pending_click_key(pending_id)] = encode_pending_click(pending_click)
        self._new_pending_clicks.clear()
        for key in self._deleted_keys:
            changes[key] = None
        self._deleted_keys.clear()
        changes[META_KEY] = encode_meta(
            JoinMeta(
                self.next_offset,
                self._clock.max_event_time,
                self._clock.future_events,
                self._next_pending_id,
                self.outcomes,
            )
        )
        return changes

    # --- one record ---------------------------------------------------------------------------------------------

    def _on_page(
        self, event: ResultPage, watermark: int, future_event: FutureEvent | None, line: bytes, offset: int
    ) -> None:
        request_id = event.request_id
        user = self._users[event.user_id]
        outcomes = self.outcomes.pages
        outcomes.received += 1
        if event.context:
            event.context = dict(sorted(event.context.items()))
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
            else:
                outcomes.dead_letter += 1
                self._rejected.append(
                    RejectedRecord(
                        line, offset, "conflicting_page", "a page with this request_id and other content came before"
                    )
                )
            return
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
        if future_event is not None:
            future_event.pending_page_id = pending_id
        self._pending_pages[pending_id] = self._dirty_pages[pending_id] = page
        user.pending_pages[request_id] = page
        self._accessed_users[event.user_id] = user
        heappush(self._close_queue, (closes_at, request_id, event.user_id, page))
        if closes_at < self._next_timer:
            self._next_timer = closes_at
        outcomes.open += 1
        for pending_click in list(user.pending_clicks.get(request_id, ())):
            self._remove_pending_click(pending_click)
            self._join_click(pending_click.click, page)

    def _on_click(self, click: Click, watermark: int, future_event: FutureEvent | None) -> None:
        self.outcomes.clicks.received += 1
        user = self._users[click.user_id]
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
            if future_event is not None:
                future_event.pending_click_id = pending_click.pending_id
            user.pending_clicks.setdefault(click.request_id, []).append(pending_click)
            self._accessed_users[click.user_id] = user
            self._pending_clicks[pending_click.pending_id] = self._new_pending_clicks[pending_click.pending_id] = (
                pending_click
            )
            heappush(self._click_timers, (expires_at, pending_click.pending_id))
            if expires_at < self._next_timer:
                self._next_timer = expires_at
            self.outcomes.clicks.waiting += 1

    def _join_click(self, click: Click, page: PendingPage) -> None:
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
            page.dirty = True
            self._dirty_pages[page.pending_id] = page
        user = page.user
        level = page.levels[index]
        page.joined_clicks.append((ts, item_id, _encode((ts, item_id, level, item.category, item.brand, item.price))))
        if not self._clock.exceeds_max_skew(ts):
            user.expire(ts, self._time_to_live)
            user.mark_updated(ts)
        item_fields = (item.title, level, item.category, item.brand, item.price)
        user.add_click(
            (ts, request_id, item_id, _encode((ts, request_id, item_id, page.query, *item_fields))),
            self._history_clicks,
        )
        user.dirty = True
        self._accessed_users[click.user_id] = user

    def _on_invalid_event(self, event: InvalidEvent, line: bytes, offset: int) -> None:
        if event.kind == "impression":
            self.outcomes.pages.received += 1
            self.outcomes.pages.dead_letter += 1
        elif event.kind == "click":
            self.outcomes.clicks.received += 1
            self.outcomes.clicks.dead_letter += 1
        else:
            self.outcomes.unreadable += 1
        self._rejected.append(RejectedRecord(line, offset, event.reason, event.detail))

    # --- time ---------------------------------------------------------------------------------------------------

    def _on_watermark(self, watermark: int) -> None:
        """Give up suspects, close pages and let waiting clicks go, up to `watermark`."""
        for future_event in self._clock.pop_expired():
            self._expire_future_event(future_event)
        close_queue = self._close_queue
        while close_queue and close_queue[0][0] <= watermark:
            self._close_page(heappop(close_queue)[3])
        click_timers = self._click_timers
        while click_timers and click_timers[0][0] <= watermark:
            pending_click = self._pending_clicks.get(heappop(click_timers)[1])
            if pending_click is not None:
                self._orphan_click(pending_click)
        self._next_timer = self._earliest_timer()

    def _earliest_timer(self) -> int:
        return min(
            self._clock.next_expiry,
            self.next_close,
            self._click_timers[0][0] if self._click_timers else MAX_WATERMARK,
        )

    def _close_page(self, page: PendingPage) -> None:
        """Put out a page that has closed, with its user as of the page's ts."""
        user, event = page.user, page.event
        ts = event.ts
        self._remove_pending_page(page)
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
        self._joined_pages.append(
            JoinedPage(
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
        )

    def _remove_pending_page(self, page: PendingPage) -> None:
        user = page.user
        del user.pending_pages[page.event.request_id]
        del self._pending_pages[page.pending_id]
        user.dirty = True
        self._accessed_users[page.event.user_id] = user
        self._dirty_pages.pop(page.pending_id, None)
        if page.stored:
            self._deleted_keys.add(pending_page_key(page.pending_id))

    def _orphan_click(self, pending_click: PendingClick) -> None:
        self._remove_pending_click(pending_click)
        self.outcomes.clicks.orphan += 1

    def _remove_pending_click(self, pending_click: PendingClick) -> None:
        click = pending_click.click
        user = self._users[click.user_id]
        remaining = user.pending_clicks[click.request_id]
        remaining.remove(pending_click)
        if not remaining:
            del user.pending_clicks[click.request_id]
        self._accessed_users[click.user_id] = user
        del self._pending_clicks[pending_click.pending_id]
        if self._new_pending_clicks.pop(pending_click.pending_id, None) is None:
            self._deleted_keys.add(pending_click_key(pending_click.pending_id))
        self.outcomes.clicks.waiting -= 1

    def _expire_future_event(self, future_event: FutureEvent) -> None:
        """Nobody has confirmed this time: its page, or its click that waits for one, is a dead letter."""
        detail = f"event time {future_event.ts} is more than the allowed jump ahead, and no other user has confirmed it"
        page = (
            self._pending_pages.get(future_event.pending_page_id) if future_event.pending_page_id is not None else None
        )
        if page is not None:
            self._close_queue = [entry for entry in self._close_queue if entry[3] is not page]
            heapify(self._close_queue)
            self._remove_pending_page(page)
            page.user.evict_clicks(self._history_clicks)
            self.outcomes.pages.open -= 1
            self.outcomes.pages.dead_letter += 1
            self._rejected.append(RejectedRecord(future_event.value, future_event.offset, "future_timestamp", detail))
        pending_click = (
            self._pending_clicks.get(future_event.pending_click_id)
            if future_event.pending_click_id is not None
            else None
        )
        if pending_click is not None:
            self._remove_pending_click(pending_click)
            # Its timer lies years ahead: left there, it would never be taken away.
            self._click_timers = [timer for timer in self._click_timers if timer[1] != pending_click.pending_id]
            heapify(self._click_timers)
            self.outcomes.clicks.dead_letter += 1
            self._rejected.append(RejectedRecord(future_event.value, future_event.offset, "future_timestamp", detail))

    # --- memory -------------------------------------------------------------------------------------------------

    def _allocate_pending_id(self) -> int:
        pending_id = self._next_pending_id
        self._next_pending_id = pending_id + 1
        return pending_id

    def _load_users(self, events: Sequence[Event | InvalidEvent]) -> None:
        """Read the users of a micro-batch that are not in memory, in one sorted multi-get."""
        users = self._users
        # Asked one by one: a set less the view of all resident users would walk through all of those.
        missing = sorted(
            {event.user_id for event in events if not isinstance(event, InvalidEvent) and event.user_id not in users}
        )
        for user_id, user in zip(missing, read_users(self._store, missing), strict=True):
            users[user_id] = self._accessed_users[user_id] = user

    def _restore_pending_pages(self) -> None:
        for page in read_pending_pages(self._store, self._get_user):
            request_id, user_id = page.event.request_id, page.event.user_id
            page.user.pending_pages[request_id] = page
            self._pending_pages[page.pending_id] = page
            self._close_queue.append((page.closes_at, request_id, user_id, page))
        heapify(self._close_queue)

    def _restore_pending_clicks(self) -> None:
        for pending_click in read_pending_clicks(self._store):
            user = self._get_user(pending_click.click.user_id)
            user.pending_clicks.setdefault(pending_click.click.request_id, []).append(pending_click)
            self._pending_clicks[pending_click.pending_id] = pending_click
            self._click_timers.append((pending_click.click.ts + self._attribution_window, pending_click.pending_id))
        heapify(self._click_timers)

    def _get_user(self, user_id: str) -> UserState:
        user = self._users.get(user_id)
        if user is None:
            (user,) = read_users(self._store, [user_id])
            self._users[user_id] = user
        return user
