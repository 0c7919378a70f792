"""The one order: records of several sources, released behind the lowest of their watermarks."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from heapq import merge as merge_sorted
from itertools import islice
from operator import attrgetter
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from prectr.state.encoding import order_key
from prectr.state.store import Reads
from prectr.stream.join.event_clock import END_OF_TIME
from prectr.stream.ordering.watermark import LineProgress, Silence, hear, move, no_progress
from prectr.stream.records import OrderKey, in_order

_HELD: Final = b"h"
_AFTER_HELD: Final = b"i"
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

    def take(self, count: int) -> tuple[list[Record], list[Record]]:
        """The first `count` records, and those of them that are in the store."""
        taken = self.records[:count]
        del self.records[:count]
        stored = taken[: self.stored]
        self.stored -= len(stored)
        return taken, stored


class Spill(Generic[Record]):
    """Where a merge keeps what it holds beyond its memory: its task's store.

    limit: records held in memory at the most, after `take_changes`.
    """

    def __init__(self, store: Reads, decode: Callable[[bytes], Record], limit: int) -> None:
        self.store = store
        self.decode = decode
        self.limit = limit

    def read(self, start: bytes, most: int) -> Iterator[Record]:
        """Records from key `start` on, in order."""
        for _, value in islice(self.store.scan(start, _AFTER_HELD), most):
            yield self.decode(value)


class Merge(Generic[Record]):
    """Holds the records of `sources` until none can come before them, then releases them in the one order.

    Each source's records arrive in order and after its own last watermark. A silent source is left out of the
    minimum (see `Silence`); a record of it that then comes behind the line takes effective close = line + 1 ms and is
    counted. With a `spill`, what is held is written with the task's changes, and what lies beyond `horizon`
    is held in the store alone.
    """

    def __init__(self, sources: int, spill: Spill[Record] | None = None, progress: LineProgress | None = None):
        """Take up what the spill's store holds, and the `progress` that was stored with it."""
        self.progress = progress or no_progress(sources)
        self._runs: list[_Run[Record]] = [_Run() for _ in range(sources + 2)]
        self._spill = spill
        self._horizon: OrderKey | None = None
        self._unwritten: dict[bytes, bytes] = {}
        self._released: list[bytes] = []
        if spill is not None:
            self._load(_HELD)

    @property
    def line(self) -> int:
        """The time up to which everything of all sources is here; it never goes back."""
        return self.progress.line

    @property
    def held(self) -> int:
        """Records in memory."""
        return sum(len(run.records) for run in self._runs)

    def add(
        self,
        source: int,
        records: Sequence[Record],
        watermark: int,
        *,
        read: int = 0,
        silence: Silence | None = None,
    ) -> None:
        """Take a source's next records; none of its later ones closes at or before `watermark`.

        read: how far the source has read its own partition. silence: that it has nothing to say for now.
        """
        if records and records[0].closes_at <= self.progress.line:
            records = self._put_behind_line(records)
        if records:
            if self._horizon is None:
                self._runs[source].records.extend(records)
            else:
                self._add_spilling(self._runs[source], records, self._horizon)
        hear(self.progress, source, watermark, read, silence)

    def waiting(self) -> list[list[Record]]:
        """What is held in memory, by source; what has been read back from a spill is not a source's any more."""
        return [list(run.records) for run in self._runs[:-2]]

    def end(self, source: int) -> None:
        """The source has been read to its end: it counts as past everything."""
        self.progress.watermarks[source] = END_OF_TIME
        move(self.progress)

    def release(self) -> tuple[list[Record], int]:
        """The records that are due, in order, and the time up to which all have been released now (ms).

        That time is behind the line while part of what is due still lies in the store: call again after
        `take_changes` has been written.
        """
        line = self.line
        horizon = self._horizon
        if horizon is not None and horizon[0] <= line and not self._unwritten and self._spill is not None:
            if self.held < max(1, self._spill.limit // 2):
                self._load(_HELD + order_key(*horizon))
            horizon = self._horizon
        ready: list[Record] = []
        for run in self._runs:
            records = run.records
            if records and records[0].closes_at <= line:
                taken, stored = run.take(bisect_right(records, line, key=_closes_at))
                ready += taken
                # What came late is written as a whole each time, so the store may hold any of it.
                self._released += [
                    _HELD + order_key(*in_order(record)) for record in (taken if run is self._late else stored)
                ]
        ready.sort(key=in_order)
        passed = line if horizon is None or horizon[0] > line else horizon[0] - 1
        return ready, passed

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What is newly held and what has been released since the last call; makes room in memory."""
        changes: dict[bytes, bytes | None] = dict.fromkeys(self._released)
        self._released.clear()
        if self._spill is None:
            return changes
        changes.update(self._unwritten)
        self._unwritten.clear()
        for run in self._runs:
            for record in islice(run.records, run.stored, None):
                changes[_HELD + order_key(*in_order(record))] = msgspec.msgpack.encode(record)
            run.stored = len(run.records)
        if self.held > self._spill.limit:
            self._shed(self._spill.limit // 2)
        return changes

    @property
    def _late(self) -> _Run[Record]:
        """Records that came behind the line, in order; none of them counts as stored."""
        return self._runs[-2]

    def _put_behind_line(self, records: Sequence[Record]) -> Sequence[Record]:
        """Give the records behind the line the next free place behind it; returns those that were not."""
        line = self.progress.line
        split = bisect_right(records, line, key=_closes_at)
        taken = {in_order(record) for record in self._late.records}
        late = []
        for record in records[:split]:
            place = (line + 1, record.request_id, record.user_id)
            while place in taken:  # the same ids came again behind the same line
                place = (place[0] + 1, *place[1:])
            taken.add(place)
            late.append(msgspec.structs.replace(record, closes_at=place[0]))  # type: ignore[type-var]
        self.progress.out_of_order += split
        if self._horizon is None:
            self._late.records.extend(late)
        else:
            self._add_spilling(self._late, sorted(late, key=in_order), self._horizon)
        self._late.records.sort(key=in_order)
        self._late.stored = 0
        return records[split:]

    def _add_spilling(self, run: _Run[Record], records: Sequence[Record], horizon: OrderKey) -> None:
        split = bisect_left(records, horizon, key=in_order)
        run.records.extend(records[:split])
        for record in records[split:]:
            self._unwritten[_HELD + order_key(*in_order(record))] = msgspec.msgpack.encode(record)

    def _shed(self, keep: int) -> None:
        """Keep the first `keep` records in memory and leave the rest to the store, which has them all."""
        keys = merge_sorted(*(map(in_order, run.records) for run in self._runs))
        self._horizon = horizon = next(islice(keys, keep, None))
        for run in self._runs:
            del run.records[bisect_left(run.records, horizon, key=in_order) :]
            run.stored = len(run.records)

    def _load(self, start: bytes) -> None:
        """Read the next records from the store into memory, and set the horizon behind them."""
        assert self._spill is not None
        loaded = list(self._spill.read(start, self._spill.limit // 2 + 1))
        self._horizon = in_order(loaded.pop()) if len(loaded) > self._spill.limit // 2 else None
        run = self._runs[-1]
        # Whatever the last run still holds came from the store too, and lies before what is loaded now.
        run.records += loaded
        run.stored = len(run.records)
