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
from prectr.state.store import Reads
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Click, Event, Impression, Rejected
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import END_OF_TIME, Clock, Suspect
from prectr.stream.join.state import (
    META_KEY,
    SessionsMeta,
    WaitingClick,
    encode_meta,
    encode_page,
    encode_waiting,
    page_key,
    read_meta,
    read_pages,
    read_users,
    read_waiting,
    user_key,
    waiting_key,
)
from prectr.stream.join.user_state import OpenPage, User
from prectr.stream.records import Activity

CHUNK_LINES: Final = 512
"""Lines to decode and judge at a time, so that events are still in the processor's cache when they are judged."""
_encode = msgspec.msgpack.Encoder().encode


class MicroBatch(NamedTuple):
    """Consecutive records of one partition: decoded, as bytes, and where they stood (ever rising)."""

    events: Sequence[Event | Rejected]
    lines: Sequence[bytes]
    places: Sequence[int]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A record for the dead letters: its bytes, its place, one word of reason and the detail."""

    value: bytes
    place: int
    reason: str
    detail: str


class Sessions:
    """One task of the stage. Feed it with `process`; then write `take_changes` in one batch with the position.

    Open pages, waiting clicks and the users of open pages stay in memory (bounded by the attribution window times
    the rate); every other user is read from the store by the micro-batch and dropped after it.
    """

    def __init__(self, config: PipelineConfig, store: Reads, label: Callable[[str, Impression], None]) -> None:
        """Take up the task where `store` left it. `label` fills missing relevance levels in place."""
        self._window = round(config.attribution_window * 1000)
        self._memory = round(config.closed_id_memory * 1000)
        self._history = config.history_clicks
        self._time_to_live = round(config.user_ttl * 1000)
        self._store = store
        self._label = label
        self._users: dict[str, User] = {}
        self._touched: dict[str, User] = {}
        self._open: list[tuple[int, str, str, OpenPage]] = []
        self._pages: dict[int, OpenPage] = {}
        self._dirty_pages: dict[int, OpenPage] = {}
        self._timers: list[tuple[int, int]] = []
        self._waiting: dict[int, WaitingClick] = {}
        self._new_waiting: dict[int, WaitingClick] = {}
        self._deleted: set[bytes] = set()
        meta = read_meta(store)
        self.position = meta.position
        self.outcomes = meta.outcomes
        self._next_number = meta.next_number
        self._clock = Clock(
            round(config.allowed_lateness * 1000), round(config.clock_jump * 1000), meta.accepted, meta.suspects
        )
        self._take_up_pages()
        self._take_up_waiting()
        self._out: list[Activity] = []
        self._refused: list[Refused] = []
        self._next_timer = self._earliest_timer()

    @property
    def watermark(self) -> int:
        """No page with an effective close up to this will be put out after the ones that have been."""
        return self._clock.watermark

    @property
    def next_close(self) -> int:
        """The earliest effective close of the open pages; `END_OF_TIME` without any."""
        return self._open[0][0] if self._open else END_OF_TIME

    def process(self, batch: MicroBatch, position: int) -> tuple[list[Activity], list[Refused]]:
        """Judge the records in their order. `position`: of the record after the last.

        Returns the pages that closed, in the order (effective close, request_id, user_id), and the refused records.
        """
        self._load_users(batch.events)
        out: list[Activity] = []
        refused: list[Refused] = []
        self._out, self._refused = out, refused
        clock = self._clock
        observe, judge_click, judge_page = clock.observe, self._judge_click, self._judge_page
        for event, line, place in zip(batch.events, batch.lines, batch.places, strict=True):
            if isinstance(event, Rejected):
                self._reject(event, line, place)
                continue
            suspect = observe(event.ts, event.user_id)
            watermark = clock.watermark
            if watermark >= self._next_timer:
                self._advance(watermark)
            held = clock.hold(event.ts, event.user_id, place, line) if suspect else None
            if isinstance(event, Click):
                judge_click(event, watermark, held)
            else:
                judge_page(event, watermark, held, line, place)
            if suspect:
                self._next_timer = self._earliest_timer()
        self.position = position
        return out, refused

    def flush(self) -> list[Activity]:
        """The log has ended for good: close every open page; what still waits for a page is orphan."""
        self._out = []
        while self._open:
            self._emit(heappop(self._open)[3])
        for waiting in list(self._waiting.values()):
            self._orphan(waiting)
        self._timers.clear()
        self._next_timer = self._earliest_timer()
        return self._out

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What has changed since the last call, the position included; users without open pages leave the memory."""
        changes: dict[bytes, bytes | None] = {}
        watermark = self.watermark
        for user_id, user in self._touched.items():
            if user.dirty:
                changes[user_key(user_id)] = user.encoded(watermark, self._memory)
                user.dirty = False
            if not user.open and not user.waiting:
                del self._users[user_id]
        self._touched.clear()
        for number, page in self._dirty_pages.items():
            changes[page_key(number)] = encode_page(page)
            page.dirty, page.stored = False, True
        self._dirty_pages.clear()
        for number, waiting in self._new_waiting.items():
            changes[waiting_key(number)] = encode_waiting(waiting)
        self._new_waiting.clear()
        for key in self._deleted:
            changes[key] = None
        self._deleted.clear()
        changes[META_KEY] = encode_meta(
            SessionsMeta(self.position, self._clock.accepted, self._clock.suspects, self._next_number, self.outcomes)
        )
        return changes

    # --- one record ---------------------------------------------------------------------------------------------

    def _judge_page(self, event: Impression, watermark: int, held: Suspect | None, line: bytes, place: int) -> None:
        request_id = event.request_id
        user = self._users[event.user_id]
        outcomes = self.outcomes.impressions
        outcomes.received += 1
        if event.context:
            event.context = dict(sorted(event.context.items()))
        encoded = _encode(event)
        digest = _sha256(encoded).digest()[:16]
        known = user.open.get(request_id)
        same = known.hash if known is not None else user.closed_page(request_id, watermark, self._memory)
        if same is not None:
            if same == digest:
                outcomes.duplicate += 1
            else:
                outcomes.dead_letter += 1
                self._refused.append(
                    Refused(
                        line, place, "conflicting_page", "a page with this request_id and other content came before"
                    )
                )
            return
        query = normalise_query(event.query)
        levels = [item.relevance for item in event.items]
        if None in levels:
            self._label(query, event)
            encoded = _encode(event)
            levels = [item.relevance for item in event.items]
        closes_at = event.ts + self._window
        if closes_at <= watermark:
            closes_at = watermark + 1
        number = self._number()
        shown = bytes(levels)  # type: ignore[arg-type]  # there is no None left
        page = OpenPage(number, closes_at, event, encoded, digest, query, user, shown, bytearray(len(shown)))
        if held is not None:
            held.page = number
        self._pages[number] = self._dirty_pages[number] = page
        user.open[request_id] = page
        self._touched[event.user_id] = user
        heappush(self._open, (closes_at, request_id, event.user_id, page))
        if closes_at < self._next_timer:
            self._next_timer = closes_at
        outcomes.open += 1
        for waiting in list(user.waiting.get(request_id, ())):
            self._drop_waiting(waiting)
            self._join(waiting.click, page)

    def _judge_click(self, click: Click, watermark: int, held: Suspect | None) -> None:
        self.outcomes.clicks.received += 1
        user = self._users[click.user_id]
        page = user.open.get(click.request_id)
        if page is not None:
            self._join(click, page)
        elif user.entry.closed and user.closed_page(click.request_id, watermark, self._memory) is not None:
            self.outcomes.clicks.late += 1
        else:
            expires_at = click.ts + self._window
            if expires_at <= watermark:
                self.outcomes.clicks.orphan += 1
                return
            waiting = WaitingClick(self._number(), click)
            if held is not None:
                held.waiting = waiting.number
            user.waiting.setdefault(click.request_id, []).append(waiting)
            self._touched[click.user_id] = user
            self._waiting[waiting.number] = self._new_waiting[waiting.number] = waiting
            heappush(self._timers, (expires_at, waiting.number))
            if expires_at < self._next_timer:
                self._next_timer = expires_at
            self.outcomes.clicks.waiting += 1

    def _join(self, click: Click, page: OpenPage) -> None:
        outcomes = self.outcomes.clicks
        item_id, request_id, ts = click.item_id, click.request_id, click.ts
        place = 0
        for item in page.event.items:
            if item.item_id == item_id:
                break
            place += 1
        else:
            outcomes.foreign += 1
            return
        if page.labels[place]:
            outcomes.duplicate += 1
            return
        if ts > page.event.ts + self._window:
            outcomes.late += 1
            return
        outcomes.joined += 1
        page.labels[place] = 1
        if not page.dirty:
            page.dirty = True
            self._dirty_pages[page.number] = page
        user = page.user
        level = page.levels[place]
        page.clicked.append((ts, item_id, _encode((ts, item_id, level, item.category, item.brand, item.price))))
        if not self._clock.is_ahead(ts):
            user.expire(ts, self._time_to_live)
            user.touch(ts)
        shown = (item.title, level, item.category, item.brand, item.price)
        user.add_click((ts, request_id, item_id, _encode((ts, request_id, item_id, page.query, *shown))), self._history)
        user.dirty = True
        self._touched[click.user_id] = user

    def _reject(self, event: Rejected, line: bytes, place: int) -> None:
        if event.kind == "impression":
            self.outcomes.impressions.received += 1
            self.outcomes.impressions.dead_letter += 1
        elif event.kind == "click":
            self.outcomes.clicks.received += 1
            self.outcomes.clicks.dead_letter += 1
        else:
            self.outcomes.unreadable += 1
        self._refused.append(Refused(line, place, event.reason, event.detail))

    # --- time ---------------------------------------------------------------------------------------------------

    def _advance(self, watermark: int) -> None:
        """Give up suspects, close pages and let waiting clicks go, up to `watermark`."""
        for suspect in self._clock.expired():
            self._give_up(suspect)
        opened = self._open
        while opened and opened[0][0] <= watermark:
            self._emit(heappop(opened)[3])
        timers = self._timers
        while timers and timers[0][0] <= watermark:
            waiting = self._waiting.get(heappop(timers)[1])
            if waiting is not None:
                self._orphan(waiting)
        self._next_timer = self._earliest_timer()

    def _earliest_timer(self) -> int:
        return min(
            self._clock.next_expiry,
            self.next_close,
            self._timers[0][0] if self._timers else END_OF_TIME,
        )

    def _emit(self, page: OpenPage) -> None:
        """Put out a page that has closed, with its user as of the page's ts."""
        user, event = page.user, page.event
        ts = event.ts
        self._drop_page(page)
        user.expire(ts, self._time_to_live)
        stats = user.fold_pages(ts)
        activity, history = user.activity_at(ts, self._history)
        labels = bytes(page.labels)
        counts = count_levels(page.levels, labels)
        user.close(page, counts, self._history)
        if len(page.clicked) > 1:
            page.clicked.sort()
        outcomes = self.outcomes.impressions
        outcomes.open -= 1
        outcomes.emitted += 1
        self._out.append(
            Activity(
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
                msgspec.Raw(page.page),
                tuple([click[2] for click in page.clicked]),
            )
        )

    def _drop_page(self, page: OpenPage) -> None:
        user = page.user
        del user.open[page.event.request_id]
        del self._pages[page.number]
        user.dirty = True
        self._touched[page.event.user_id] = user
        self._dirty_pages.pop(page.number, None)
        if page.stored:
            self._deleted.add(page_key(page.number))

    def _orphan(self, waiting: WaitingClick) -> None:
        self._drop_waiting(waiting)
        self.outcomes.clicks.orphan += 1

    def _drop_waiting(self, waiting: WaitingClick) -> None:
        click = waiting.click
        user = self._users[click.user_id]
        left = user.waiting[click.request_id]
        left.remove(waiting)
        if not left:
            del user.waiting[click.request_id]
        self._touched[click.user_id] = user
        del self._waiting[waiting.number]
        if self._new_waiting.pop(waiting.number, None) is None:
            self._deleted.add(waiting_key(waiting.number))
        self.outcomes.clicks.waiting -= 1

    def _give_up(self, suspect: Suspect) -> None:
        """Nobody has confirmed this time: its page, or its click that waits for one, is a dead letter."""
        detail = f"event time {suspect.ts} is more than the allowed jump ahead, and no other user has confirmed it"
        page = self._pages.get(suspect.page) if suspect.page is not None else None
        if page is not None:
            self._open = [entry for entry in self._open if entry[3] is not page]
            heapify(self._open)
            self._drop_page(page)
            page.user.fold_clicks(self._history)
            self.outcomes.impressions.open -= 1
            self.outcomes.impressions.dead_letter += 1
            self._refused.append(Refused(suspect.value, suspect.place, "unconfirmed_clock", detail))
        waiting = self._waiting.get(suspect.waiting) if suspect.waiting is not None else None
        if waiting is not None:
            self._drop_waiting(waiting)
            # Its timer lies years ahead: left there, it would never be taken away.
            self._timers = [timer for timer in self._timers if timer[1] != waiting.number]
            heapify(self._timers)
            self.outcomes.clicks.dead_letter += 1
            self._refused.append(Refused(suspect.value, suspect.place, "unconfirmed_clock", detail))

    # --- memory -------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        number = self._next_number
        self._next_number = number + 1
        return number

    def _load_users(self, events: Sequence[Event | Rejected]) -> None:
        """Read the users of a micro-batch that are not in memory, in one sorted multi-get."""
        users = self._users
        # Asked one by one: a set less the view of all resident users would walk through all of those.
        missing = sorted(
            {event.user_id for event in events if not isinstance(event, Rejected) and event.user_id not in users}
        )
        for user_id, user in zip(missing, read_users(self._store, missing), strict=True):
            users[user_id] = self._touched[user_id] = user

    def _take_up_pages(self) -> None:
        for page in read_pages(self._store, self._resident):
            request_id, user_id = page.event.request_id, page.event.user_id
            page.user.open[request_id] = page
            self._pages[page.number] = page
            self._open.append((page.closes_at, request_id, user_id, page))
        heapify(self._open)

    def _take_up_waiting(self) -> None:
        for waiting in read_waiting(self._store):
            user = self._resident(waiting.click.user_id)
            user.waiting.setdefault(waiting.click.request_id, []).append(waiting)
            self._waiting[waiting.number] = waiting
            self._timers.append((waiting.click.ts + self._window, waiting.number))
        heapify(self._timers)

    def _resident(self, user_id: str) -> User:
        user = self._users.get(user_id)
        if user is None:
            (user,) = read_users(self._store, [user_id])
            self._users[user_id] = user
        return user
