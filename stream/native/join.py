"""Stage `join` in the core: the same outputs, changes and state as `prectr.stream.join.operator.Join`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from prectr.state.encoding import DAMAGE
from prectr.state.errors import StateError
from prectr.state.store import ReadableStore
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join import event_clock
from prectr.stream.join.conflicting_page import describe_conflict
from prectr.stream.join.event_clock import ClockState
from prectr.stream.join.operator import RejectedRecord, future_timestamp
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.join.state import META_KEY, JoinMeta, encode_meta, read_meta
from prectr.stream.join.user_cache import USER_KEY
from prectr.stream.native import core
from prectr.stream.native.event_batch import NativeEventBatch
from prectr.stream.records import JoinedPage, decode_joined_page, decode_page

_AFTER_LAST_ID: Final = b"\xff" * 9
_PAGE_COUNTS: Final = len(PageOutcomes.__struct_fields__)
_encode = msgspec.msgpack.Encoder().encode
_decode_clock = msgspec.msgpack.Decoder(ClockState).decode


class NativeJoin:
    """One task of the stage, as `Join`."""

    def __init__(self, config: PipelineConfig, store: ReadableStore, label: Callable[[str, ResultPage], None]) -> None:
        """Restore the task from `store`. `label` fills in missing relevance levels in place."""
        self._store = store
        self._label = label
        self._core = core.Join(
            round(config.attribution_window * 1000),
            round(config.dedup_retention * 1000),
            round(config.user_ttl * 1000),
            config.history_clicks,
            [action.encode() for action in config.click_actions],
            round(config.allowed_lateness * 1000),
            round(config.max_clock_skew * 1000),
            event_clock.SETTLING_TURNS,
            event_clock.SETTLING_RECORDS,
        )
        meta = read_meta(store)
        self.next_offset = meta.next_offset
        outcomes = (*msgspec.structs.astuple(meta.outcomes.pages), *msgspec.structs.astuple(meta.outcomes.clicks))
        pages, clicks, future = (list(store.scan(prefix, prefix + _AFTER_LAST_ID)) for prefix in (b"p", b"w", b"f"))
        self._core.restore(
            _encode(meta.clock),
            meta.next_pending_id,
            (*outcomes, meta.outcomes.unreadable),
            pages,
            [value for _, value in clicks],
            [value for _, value in future],
        )
        for pending_id, query in self._core.odd_queries():
            self._core.set_query_key(pending_id, normalise_query(query))
        self._load(self._core.unloaded(), accessed=False)

    @property
    def outcomes(self) -> Outcomes:
        """Outcome counts so far."""
        *counts, unreadable = self._core.outcomes()
        return Outcomes(PageOutcomes(*counts[:_PAGE_COUNTS]), ClickOutcomes(*counts[_PAGE_COUNTS:]), unreadable)

    @property
    def watermark(self) -> int:
        """Every page emitted from now on has a close time after this (ms)."""
        return self._core.watermark()

    def future_events(self) -> tuple[int, int]:
        """Return how many pages and waiting clicks are ahead of the clock now, and by how much at most, in ms."""
        count, lead = self._core.future_events()
        return count, lead

    @property
    def next_close(self) -> int:
        """The earliest close time of the pending pages (ms); `MAX_WATERMARK` if there are none."""
        return self._core.next_close()

    @property
    def resident(self) -> list[int]:
        """Number of users, pending pages, pending clicks and future events in memory."""
        return self._core.resident()

    def process(self, batch: EventBatch, next_offset: int) -> tuple[list[JoinedPage], list[RejectedRecord]]:
        """Process the records in their order, as `Join.process`."""
        own = batch if isinstance(batch, NativeEventBatch) else NativeEventBatch(batch.lines, batch.offsets)
        own.label(self._label)
        self._load(self._core.missing(own.core, own.partition), accessed=True)
        joined_pages, rejected = self._core.process(own.core, own.partition)
        self.next_offset = next_offset
        with _damage_as_state_error():
            return [decode_joined_page(page) for page in joined_pages], list(_in_words(rejected, own))

    def flush(self) -> list[JoinedPage]:
        """End the log: close every pending page and count the remaining pending clicks as orphans."""
        joined_pages, _ = self._core.flush()
        with _damage_as_state_error():
            return [decode_joined_page(page) for page in joined_pages]

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call, including the next offset."""
        changes = self._core.changes()
        clock = _decode_clock(self._core.clock())
        changes[META_KEY] = encode_meta(JoinMeta(self.next_offset, clock, self._core.next_id(), self.outcomes))
        return changes

    def _load(self, user_ids: Sequence[bytes], *, accessed: bool) -> None:
        if user_ids:
            self._core.load(user_ids, self._store.get_many([USER_KEY + user_id for user_id in user_ids]), accessed)


@contextmanager
def _damage_as_state_error() -> Iterator[None]:
    """What the core copies from the store unread, such as the text of a title, is checked here."""
    try:
        yield
    except DAMAGE as error:
        raise StateError(f"a record of the state is damaged: {error}") from error


def _in_words(rejected: "Sequence[core.Rejected]", batch: NativeEventBatch) -> Iterator[RejectedRecord]:
    """Yield the records for the dead letters, with the details that Python words."""
    for found in rejected:
        if len(found) == 4:
            yield future_timestamp(*found)
            continue
        line, offset = batch.lines[found[0]], batch.offsets[found[0]]
        if len(found) == 1:
            event = batch.invalid[found[0]]
            yield RejectedRecord(line, offset, event.reason, event.detail)
            continue
        _, known, page = found
        conflict = describe_conflict(None if known is None else decode_page(known), decode_page(page))
        yield RejectedRecord(line, offset, "conflicting_page", conflict)
