"""The one order: records of several sources, released behind the lowest of their watermarks."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from heapq import merge as merge_sorted
from itertools import islice
from operator import attrgetter
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from prectr.state.encoding import encode_order_key
from prectr.state.store import ReadableStore
from prectr.stream.join.event_clock import MAX_WATERMARK
from prectr.stream.ordering.watermark import MergedWatermark, SourceIdleness, advance, initial_watermark, observe
from prectr.stream.records import OrderKey, order_key_of

_BUFFERED: Final = b"h"
_AFTER_BUFFERED: Final = b"i"
_closes_at = attrgetter("closes_at")


class Ordered(Protocol):
    """A record with its place in the one order."""

    @property
    def closes_at(self) -> int: ...  # noqa: D102
    @property
    def request_id(self) -> str: ...  # noqa: D102
    @property
    def user_id(self) -> str: ...  # noqa: D102


Record = TypeVar("Record", bound=Ordered)


class _Run(Generic[Record]):
    """Records of one source in order; the first `stored` of them are in the store as well."""

    __slots__ = ("records", "stored")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.stored = 0

    def pop_first(self, count: int) -> tuple[list[Record], list[Record]]:
        """The first `count` records, and those of them that are in the store."""
        popped = self.records[:count]
        del self.records[:count]
        stored = popped[: self.stored]
        self.stored -= len(stored)
        return popped, stored


class Spill(Generic[Record]):
    """Where a merge keeps what it holds beyond its memory: its task's store.

    limit: records held in memory at the most, after `take_changes`.
    """

    def __init__(self, store: ReadableStore, decode: Callable[[bytes], Record], max_buffered: int) -> None:
        self.store = store
        self.decode = decode
        self.max_buffered = max_buffered

    def read(self, start: bytes, max_records: int) -> Iterator[Record]:
        """Records from key `start` on, in order."""
        for _, value in islice(self.store.scan(start, _AFTER_BUFFERED), max_records):
            yield self.decode(value)


class OrderedMerge(Generic[Record]):
    """Holds the records of `sources` until none can come before them, then releases them in the one order.

    Each source's records arrive in order and after its own last watermark. A silent source is left out of the
    minimum (see `Silence`); a record of it that then comes behind the line takes effective close = line + 1 ms and is
    counted. With a `spill`, what is held is written with the task's changes, and what lies beyond `horizon`
    is held in the store alone.
    """

    def __init__(
        self, sources: int, spill: Spill[Record] | None = None, merged_watermark: MergedWatermark | None = None
    ):
        """Take up what the spill's store holds, and the `progress` that was stored with it."""
        self.merged_watermark = merged_watermark or initial_watermark(sources)
        self._runs: list[_Run[Record]] = [_Run() for _ in range(sources + 2)]
        self._spill = spill
        self._spill_boundary: OrderKey | None = None
        self._unwritten: dict[bytes, bytes] = {}
        self._released_keys: list[bytes] = []
        if spill is not None:
            self._read_spilled(_BUFFERED)

    @property
    def watermark(self) -> int:
        """The time up to which everything of all sources is here; it never goes back."""
        return self.merged_watermark.watermark

    @property
    def buffered(self) -> int:
        """Records in memory."""
        return sum(len(run.records) for run in self._runs)

    def add(
        self,
        source: int,
        records: Sequence[Record],
        watermark: int,
        *,
        read_offset: int = 0,
        idleness: SourceIdleness | None = None,
    ) -> None:
        """Take a source's next records; none of its later ones closes at or before `watermark`.

        read: how far the source has read its own partition. silence: that it has nothing to say for now.
        """
        if records and records[0].closes_at <= self.merged_watermark.watermark:
            records = self._reassign_late(records)
        if records:
            if self._spill_boundary is None:
                self._runs[source].records.extend(records)
            else:
                self._add_with_spill(self._runs[source], records, self._spill_boundary)
        observe(self.merged_watermark, source, watermark, read_offset, idleness)

    def buffered_by_source(self) -> list[list[Record]]:
        """What is held in memory, by source; what has been read back from a spill is not a source's any more."""
        return [list(run.records) for run in self._runs[:-2]]

    def end_source(self, source: int) -> None:
        """The source has been read to its end: it counts as past everything."""
        self.merged_watermark.source_watermarks[source] = MAX_WATERMARK
        advance(self.merged_watermark)

    def release(self) -> tuple[list[Record], int]:
        """The records that are due, in order, and the time up to which all have been released now (ms).

        That time is behind the line while part of what is due still lies in the store: call again after
        `take_changes` has been written.
        """
        watermark = self.watermark
        spill_boundary = self._spill_boundary
        if (
            spill_boundary is not None
            and spill_boundary[0] <= watermark
            and not self._unwritten
            and self._spill is not None
        ):
            if self.buffered < max(1, self._spill.max_buffered // 2):
                self._read_spilled(_BUFFERED + encode_order_key(*spill_boundary))
            spill_boundary = self._spill_boundary
        ready: list[Record] = []
        for run in self._runs:
            records = run.records
            if records and records[0].closes_at <= watermark:
                popped, stored = run.pop_first(bisect_right(records, watermark, key=_closes_at))
                ready += popped
                # What came late is written as a whole each time, so the store may hold any of it.
                self._released_keys += [
                    _BUFFERED + encode_order_key(*order_key_of(record))
                    for record in (popped if run is self._late else stored)
                ]
        ready.sort(key=order_key_of)
        released_up_to = watermark if spill_boundary is None or spill_boundary[0] > watermark else spill_boundary[0] - 1
        return ready, released_up_to

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """What is newly held and what has been released since the last call; makes room in memory."""
        changes: dict[bytes, bytes | None] = dict.fromkeys(self._released_keys)
        self._released_keys.clear()
        if self._spill is None:
            return changes
        changes.update(self._unwritten)
        self._unwritten.clear()
        for run in self._runs:
            for record in islice(run.records, run.stored, None):
                changes[_BUFFERED + encode_order_key(*order_key_of(record))] = msgspec.msgpack.encode(record)
            run.stored = len(run.records)
        if self.buffered > self._spill.max_buffered:
            self._evict(self._spill.max_buffered // 2)
        return changes

    @property
    def _late(self) -> _Run[Record]:
        """Records that came behind the line, in order; none of them counts as stored."""
        return self._runs[-2]

    def _reassign_late(self, records: Sequence[Record]) -> Sequence[Record]:
        """Give the records behind the line the next free place behind it; returns those that were not."""
        watermark = self.merged_watermark.watermark
        split = bisect_right(records, watermark, key=_closes_at)
        used_keys = {order_key_of(record) for record in self._late.records}
        late = []
        for record in records[:split]:
            key = (watermark + 1, record.request_id, record.user_id)
            while key in used_keys:  # the same ids came again behind the same line
                key = (key[0] + 1, *key[1:])
            used_keys.add(key)
            late.append(msgspec.structs.replace(record, closes_at=key[0]))  # type: ignore[type-var]
        self.merged_watermark.late_records += split
        if self._spill_boundary is None:
            self._late.records.extend(late)
        else:
            self._add_with_spill(self._late, sorted(late, key=order_key_of), self._spill_boundary)
        self._late.records.sort(key=order_key_of)
        self._late.stored = 0
        return records[split:]

    def _add_with_spill(self, run: _Run[Record], records: Sequence[Record], spill_boundary: OrderKey) -> None:
        split = bisect_left(records, spill_boundary, key=order_key_of)
        run.records.extend(records[:split])
        for record in records[split:]:
            self._unwritten[_BUFFERED + encode_order_key(*order_key_of(record))] = msgspec.msgpack.encode(record)

    def _evict(self, keep: int) -> None:
        """Keep the first `keep` records in memory and leave the rest to the store, which has them all."""
        keys = merge_sorted(*(map(order_key_of, run.records) for run in self._runs))
        self._spill_boundary = spill_boundary = next(islice(keys, keep, None))
        for run in self._runs:
            del run.records[bisect_left(run.records, spill_boundary, key=order_key_of) :]
            run.stored = len(run.records)

    def _read_spilled(self, start: bytes) -> None:
        """Read the next records from the store into memory, and set the horizon behind them."""
        assert self._spill is not None
        loaded = list(self._spill.read(start, self._spill.max_buffered // 2 + 1))
        self._spill_boundary = order_key_of(loaded.pop()) if len(loaded) > self._spill.max_buffered // 2 else None
        run = self._runs[-1]
        # Whatever the last run still holds came from the store too, and lies before what is loaded now.
        run.records += loaded
        run.stored = len(run.records)
