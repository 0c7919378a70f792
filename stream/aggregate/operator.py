"""Stage `queries`: adds the query's aggregates as of the page's time, then counts the page in.

A pure function of (records of the one order, state). A page sees every page of its query whose effective close
is ≤ its own ts, and none later.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from prectr.state.errors import StateError
from prectr.state.store import Reads
from prectr.stream.aggregate.query_state import Query
from prectr.stream.config import PipelineConfig
from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.ordered_merge import Merge, Spill
from prectr.stream.ordering.watermark import LineProgress, Silence
from prectr.stream.records import Activity, Example, decode_activity

META_KEY: Final = b"m"
QUERY_KEY: Final = b"q"
HELD_RECORDS: Final = 16_384
"""Records that a task's merge holds in memory; the rest waits in its store."""
CACHED_QUERIES: Final = 4_096
"""Entries that a task keeps decoded between micro-batches."""

_encode = msgspec.msgpack.Encoder().encode


class QueriesMeta(msgspec.Struct, array_like=True):
    """Everything of the task that is not of one query.

    positions: sequence of the next unread frame of each source. offset: of the next unread record of its partition.
    ends: by source, the offset of the events to which it was asked to read and has read. outcomes: of each source, as
    last heard.
    """

    positions: list[int] = []
    offset: int = 0
    ends: dict[int, int] = {}
    outcomes: dict[int, Outcomes] = {}
    merge: LineProgress | None = None
    emitted: int = 0


_decode_meta = msgspec.msgpack.Decoder(QueriesMeta).decode


class Queries:
    """One task of the stage. `add` the frames of its sources, `process`, then write `take_changes` in one batch."""

    def __init__(self, config: PipelineConfig, store: Reads, sources: int) -> None:
        """Take up the task where `store` left it. sources: tasks of the stage before."""
        self._half_life = config.half_life * 1000
        self._ring = config.query_clicks
        self._time_to_live = round(config.query_ttl * 1000)
        self._store = store
        self._queries: dict[str, Query] = {}
        self._touched: set[str] = set()
        (stored,) = store.get_many([META_KEY])
        meta = QueriesMeta([0] * sources) if stored is None else _decode_meta(stored)
        self.positions = meta.positions
        self.offset = meta.offset
        self.outcomes = meta.outcomes
        self.ends = meta.ends
        self.emitted = meta.emitted
        self._merge: Merge[Activity] = Merge(sources, Spill(store, decode_activity, HELD_RECORDS), meta.merge)
        self.watermark = BEFORE_TIME

    @property
    def behind(self) -> bool:
        """Whether more is due than memory had room for: call `process` again after writing the changes."""
        return self.watermark < self._merge.line

    def add(
        self,
        source: int,
        records: Sequence[Activity],
        watermark: int,
        *,
        read: int = 0,
        silence: Silence | None = None,
    ) -> None:
        """Take a frame of a source."""
        self._merge.add(source, records, watermark, read=read, silence=silence)
        self.positions[source] += 1

    def take_frame(self, frame: Frame, records: Sequence[Activity]) -> None:
        """Take one part of a frame, as it came over the wire.

        Raises:
            StateError: a frame is missing or came twice, which only a damaged topic can bring about.
        """
        source = frame.source
        if frame.sequence != self.positions[source]:
            raise StateError(
                f"frame {frame.sequence} of sessions task {source} came where {self.positions[source]} was due: "
                "the topic has lost or repeated records; rebuild from search-events under a new --topic-prefix"
            )
        if not frame.last:
            # The end of what the source had read counts with its watermark.
            self.add(source, records, self._merge.progress.watermarks[source], read=self._read_before(source))
            return
        self.add(source, records, frame.watermark, read=frame.read, silence=frame.silence)
        self.outcomes |= frame.outcomes
        self.ends |= frame.ends

    def _read_before(self, source: int) -> int:
        steps = self._merge.progress.steps[source]
        return steps[-1][0] if steps else 0

    @property
    def heard(self) -> int:
        """The largest watermark that any source has told (ms)."""
        return max((mark for mark in self._merge.progress.watermarks if mark < END_OF_TIME), default=BEFORE_TIME)

    @property
    def out_of_order(self) -> int:
        """Records that came behind the line."""
        return self._merge.progress.out_of_order

    def end(self, source: int) -> None:
        """The source has been read to its end."""
        self._merge.end(source)

    def process(self) -> list[Example]:
        """Put out the records that are due, in the one order, and move the watermark up behind them."""
        records, self.watermark = self._merge.release()
        self._load(records)
        half_life, ring, time_to_live, queries = self._half_life, self._ring, self._time_to_live, self._queries
        examples = []
        for record in records:
            query = queries[record.query]
            ts = record.ts
            query.expire(ts, time_to_live)
            entry = query.entry
            if entry.pending and entry.pending[0][0] <= ts:
                query.fold(ts, half_life, ring)
                entry = query.entry
            examples.append(
                Example(
                    record.closes_at,
                    record.request_id,
                    record.user_id,
                    ts,
                    record.query,
                    record.labels,
                    record.levels,
                    record.user_activity,
                    record.user_stats,
                    entry.totals,
                    query.decayed_at(ts, half_life),
                    record.history,
                    query.clicks(),
                    record.page,
                )
            )
            query.take(record.closes_at, record.counts, record.clicked)
        self.emitted += len(examples)
        return examples

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What has changed since the last call, positions included."""
        changes = self._merge.take_changes()
        for name in self._touched:
            changes[QUERY_KEY + name.encode()] = self._queries[name].encoded()
        if len(self._queries) > CACHED_QUERIES:
            self._queries = {name: query for name, query in self._queries.items() if name in self._touched}
        self._touched.clear()
        changes[META_KEY] = _encode(
            QueriesMeta(self.positions, self.offset, self.ends, self.outcomes, self._merge.progress, self.emitted)
        )
        return changes

    def _load(self, records: Sequence[Activity]) -> None:
        """Read the queries that are not in memory, in one sorted multi-get."""
        names = {record.query for record in records}
        self._touched |= names
        missing = sorted(name for name in names if name not in self._queries)
        stored = self._store.get_many([QUERY_KEY + name.encode() for name in missing])
        for name, value in zip(missing, stored, strict=True):
            self._queries[name] = Query(value)
