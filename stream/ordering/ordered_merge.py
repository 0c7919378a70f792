"""K-way merge into the total order: records of several sources, released up to the lowest of their watermarks."""

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

BUFFERED: Final = b"h"
"""Before the keys of spilled records."""
AFTER_BUFFERED: Final = b"i"
_closes_at = attrgetter("closes_at")


class Ordered(Protocol):
    """A record with a position in the total order."""

    @property
    def closes_at(self) -> int: ...  # noqa: D102
    @property
    def request_id(self) -> str: ...  # noqa: D102
    @property
    def user_id(self) -> str: ...  # noqa: D102


Record = TypeVar("Record", bound=Ordered)


class _Run(Generic[Record]):
    """Records of one source in order; the first `stored` of them are also in the store."""

    __slots__ = ("records", "stored")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.stored = 0

    def pop_first(self, count: int) -> tuple[list[Record], list[Record]]:
        """Remove the first `count` records; return them, and those of them that are in the store."""
        popped = self.records[:count]
        del self.records[:count]
        stored = popped[: self.stored]
        self.stored -= len(stored)
        return popped, stored


class Spill(Generic[Record]):
    """The part of a task's store to which its merge spills records beyond its memory limit."""

    def __init__(self, store: ReadableStore, decode: Callable[[bytes], Record], max_buffered: int) -> None:
        """max_buffered: maximum number of records in memory after `drain_changes`."""
        self.store = store
        self.decode = decode
        self.max_buffered = max_buffered

    def read(self, start: bytes, max_records: int) -> Iterator[Record]:
        """Read at most `max_records` records from key `start` on, in order."""
        for _, value in islice(self.store.scan(start, AFTER_BUFFERED), max_records):
            yield self.decode(value)


class OrderedMerge(Generic[Record]):
    """Buffers the records of `sources` until no earlier one can arrive, then releases them in the total order.

    Each source's records arrive in order and after the source's last watermark. An idle source is left out of the
    minimum (see `SourceIdleness`); a record of it that then arrives behind the merged watermark is late: it is
    counted, and its close time becomes the merged watermark + 1 ms. With a `spill`, buffered records are written with
    the task's changes, and those from the spill boundary on are in the store only.
    """

    def __init__(
        self, sources: int, spill: Spill[Record] | None = None, merged_watermark: MergedWatermark | None = None
    ):
        """Restore the records in the spill's store, and the merged watermark that was stored with them."""
        self.merged_watermark = merged_watermark or initial_watermark(sources)
        self._runs: list[_Run[Record]] = [_Run() for _ in range(sources + 2)]
        self._spill = spill
        self._spill_boundary: OrderKey | None = None
        self._unwritten: dict[bytes, bytes] = {}
        self._released_keys: list[bytes] = []
        if spill is not None:
            self._read_spilled(BUFFERED)

    @property
    def watermark(self) -> int:
        """The time up to which all records of all sources have arrived (ms); it never decreases."""
        return self.merged_watermark.watermark

    @property
    def buffered(self) -> int:
        """Number of records in memory."""
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
        """Add a source's next records; none of its later ones has a close time up to `watermark` (ms).

        Args:
            read_offset: offset up to which the source has read its own partition.
            idleness: set while the source has nothing to read.
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
        """Return the records in memory by source, without those read back from the spill or reassigned as late."""
        return [list(run.records) for run in self._runs[:-2]]

    def end_source(self, source: int) -> None:
        """Mark a source as read to its end, so that it no longer holds the merged watermark back."""
        self.merged_watermark.source_watermarks[source] = MAX_WATERMARK
        advance(self.merged_watermark)

    def release(self) -> tuple[list[Record], int]:
        """Return the records that are due, in order, and the time up to which all have been released (ms).

        That time is below the watermark while some due records are still in the store: call again after the changes
        of `drain_changes` have been written.
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
                self._read_spilled(BUFFERED + encode_order_key(*spill_boundary))
            spill_boundary = self._spill_boundary
        ready: list[Record] = []
        for run in self._runs:
            records = run.records
            if records and records[0].closes_at <= watermark:
                popped, stored = run.pop_first(bisect_right(records, watermark, key=_closes_at))
                ready += popped
                # Late records are all rewritten each time, so any of them may be in the store.
                self._released_keys += [
                    BUFFERED + encode_order_key(*order_key_of(record))
                    for record in (popped if run is self._late else stored)
                ]
        ready.sort(key=order_key_of)
        released_up_to = watermark if spill_boundary is None or spill_boundary[0] > watermark else spill_boundary[0] - 1
        return ready, released_up_to

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the records added and released since the last call as changes of the store; frees memory."""
        changes: dict[bytes, bytes | None] = dict.fromkeys(self._released_keys)
        self._released_keys.clear()
        if self._spill is None:
            return changes
        changes.update(self._unwritten)
        self._unwritten.clear()
        for run in self._runs:
            for record in islice(run.records, run.stored, None):
                changes[BUFFERED + encode_order_key(*order_key_of(record))] = msgspec.msgpack.encode(record)
            run.stored = len(run.records)
        if self.buffered > self._spill.max_buffered:
            self._evict(self._spill.max_buffered // 2)
        return changes

    @property
    def _late(self) -> _Run[Record]:
        """Late records in their new order; none of them counts as stored."""
        return self._runs[-2]

    def _reassign_late(self, records: Sequence[Record]) -> Sequence[Record]:
        """Move the records behind the merged watermark to the next free position after it; return the others."""
        watermark = self.merged_watermark.watermark
        split = bisect_right(records, watermark, key=_closes_at)
        used_keys = {order_key_of(record) for record in self._late.records}
        late = []
        for record in records[:split]:
            key = (watermark + 1, record.request_id, record.user_id)
            while key in used_keys:  # the same ids were late before, at the same watermark
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
            self._unwritten[BUFFERED + encode_order_key(*order_key_of(record))] = msgspec.msgpack.encode(record)

    def _evict(self, keep: int) -> None:
        """Keep the first `keep` records in memory; the store has all of them."""
        keys = merge_sorted(*(map(order_key_of, run.records) for run in self._runs))
        self._spill_boundary = spill_boundary = next(islice(keys, keep, None))
        for run in self._runs:
            del run.records[bisect_left(run.records, spill_boundary, key=order_key_of) :]
            run.stored = len(run.records)

    def _read_spilled(self, start: bytes) -> None:
        """Read the next records from the store into memory, and set the spill boundary after them."""
        assert self._spill is not None
        loaded = list(self._spill.read(start, self._spill.max_buffered // 2 + 1))
        self._spill_boundary = order_key_of(loaded.pop()) if len(loaded) > self._spill.max_buffered // 2 else None
        run = self._runs[-1]
        # What is left in the last run came from the store too and precedes what is loaded now.
        run.records += loaded
        run.stored = len(run.records)
