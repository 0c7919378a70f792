"""Stage `aggregate`: adds the query's aggregates as of the page's time, then counts the page.

A pure function of (records in the total order, state). A page sees every page of its query whose close time is ≤ its
own ts, and no later one.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from prectr.state.errors import Remedy, StateError
from prectr.state.store import ReadableStore
from prectr.stream.aggregate.query_state import QueryAggregates
from prectr.stream.config import PipelineConfig
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.ordered_merge import OrderedMerge, Spill
from prectr.stream.ordering.watermark import MergedWatermark, SourceIdleness
from prectr.stream.records import Example, JoinedPage, decode_joined_page

META_KEY: Final = b"m"
QUERY_KEY: Final = b"q"
MAX_BUFFERED_RECORDS: Final = 16_384
"""Records that a task's merge buffers in memory; the others are spilled to its store."""
CACHED_QUERIES: Final = 4_096
"""Queries that a task keeps in memory between micro-batches."""

_encode = msgspec.msgpack.Encoder().encode


class AggregateMeta(msgspec.Struct, array_like=True):
    """The state of the task that belongs to no single query.

    Attributes:
        next_sequences: sequence of the next unread frame of each source.
        next_offset: offset of the next unread record of the task's partition.
        reached_end_offsets: by source, the end offset that it was requested to read to and has reached.
        outcomes: the latest outcome counts of each source.
        emitted: number of examples emitted so far.
    """

    next_sequences: list[int] = []
    next_offset: int = 0
    reached_end_offsets: dict[int, int] = {}
    outcomes: dict[int, Outcomes] = {}
    merged_watermark: MergedWatermark | None = None
    emitted: int = 0


_decode_meta = msgspec.msgpack.Decoder(AggregateMeta).decode


class Aggregate:
    """One task of the stage: `add` frames of its sources, `process`, then write `drain_changes` in one batch."""

    def __init__(self, config: PipelineConfig, store: ReadableStore, sources: int) -> None:
        """Restore the task from `store`. sources: number of tasks of stage `join`."""
        self._half_lives = tuple(half_life * 1000 for half_life in config.half_lives)
        self._query_clicks = config.query_clicks
        self._time_to_live = round(config.query_ttl * 1000)
        self._store = store
        self._queries: dict[str, QueryAggregates] = {}
        self._accessed_queries: set[str] = set()
        (stored,) = store.get_many([META_KEY])
        meta = AggregateMeta([0] * sources) if stored is None else _decode_meta(stored)
        self.next_sequences = meta.next_sequences
        self.next_offset = meta.next_offset
        self.outcomes = meta.outcomes
        self.reached_end_offsets = meta.reached_end_offsets
        self.emitted = meta.emitted
        self._merge: OrderedMerge[JoinedPage] = OrderedMerge(
            sources, Spill(store, decode_joined_page, MAX_BUFFERED_RECORDS), meta.merged_watermark
        )
        self.watermark = MIN_WATERMARK

    @property
    def has_backlog(self) -> bool:
        """Whether more records are due than fit in memory: call `process` again after writing the changes."""
        return self.watermark < self._merge.watermark

    def add(
        self,
        source: int,
        records: Sequence[JoinedPage],
        watermark: int,
        *,
        read_offset: int = 0,
        idleness: SourceIdleness | None = None,
    ) -> None:
        """Add a frame of a source."""
        self._merge.add(source, records, watermark, read_offset=read_offset, idleness=idleness)
        self.next_sequences[source] += 1

    def add_frame(self, frame: Frame, records: Sequence[JoinedPage], source_name: str = "joined-pages") -> None:
        """Add one part of a frame from the topic, with its decoded records.

        Args:
            source_name: where it was read (topic, partition, offset), for the error.

        Raises:
            StateError: a frame is missing or repeated, which only a corrupt topic can cause.
        """
        source = frame.source
        due = self.next_sequences[source]
        if frame.sequence != due:
            raise StateError(
                f"{source_name}: frame {frame.sequence} of join task {source} arrived where {due} was due: "
                "the topic has lost or repeated records and must be rebuilt from search-events",
                Remedy.OTHER_TOPIC_PREFIX,
            )
        if not frame.is_last_part:
            # The source's new read offset takes effect with its watermark, in the last part.
            self.add(
                source,
                records,
                self._merge.merged_watermark.source_watermarks[source],
                read_offset=self._last_read_offset(source),
            )
            return
        self.add(source, records, frame.watermark, read_offset=frame.read_offset, idleness=frame.idleness)
        self.outcomes |= frame.outcomes
        self.reached_end_offsets |= frame.reached_end_offsets

    def _last_read_offset(self, source: int) -> int:
        history = self._merge.merged_watermark.watermark_history[source]
        return history[-1][0] if history else 0

    @property
    def max_source_watermark(self) -> int:
        """The largest watermark that any source has reported (ms)."""
        return max(
            (watermark for watermark in self._merge.merged_watermark.source_watermarks if watermark < MAX_WATERMARK),
            default=MIN_WATERMARK,
        )

    @property
    def late_records(self) -> int:
        """Records that arrived behind the merged watermark."""
        return self._merge.merged_watermark.late_records

    def end_source(self, source: int) -> None:
        """Mark a source as read to its end."""
        self._merge.end_source(source)

    def process(self) -> list[Example]:
        """Emit an example for each record that is due, in the total order, and advance the watermark."""
        records, self.watermark = self._merge.release()
        self._load_queries(records)
        half_lives, query_clicks, time_to_live, queries = (
            self._half_lives,
            self._query_clicks,
            self._time_to_live,
            self._queries,
        )
        examples = []
        for record in records:
            query = queries[record.query]
            ts = record.ts
            query.expire(ts, time_to_live)
            entry = query.entry
            if entry.unapplied_pages and entry.unapplied_pages[0][0] <= ts:
                query.apply_closed_pages(ts, half_lives, query_clicks)
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
                    query.decayed_sums_at(ts, half_lives),
                    record.history,
                    query.encoded_clicks(),
                    record.page,
                )
            )
            query.add_closed_page(record.closes_at, record.counts, record.clicks)
        self.emitted += len(examples)
        return examples

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call, including sequences and offset."""
        changes = self._merge.drain_changes()
        for name in self._accessed_queries:
            changes[QUERY_KEY + name.encode()] = self._queries[name].encode()
        if len(self._queries) > CACHED_QUERIES:
            self._queries = {name: query for name, query in self._queries.items() if name in self._accessed_queries}
        self._accessed_queries.clear()
        changes[META_KEY] = _encode(
            AggregateMeta(
                self.next_sequences,
                self.next_offset,
                self.reached_end_offsets,
                self.outcomes,
                self._merge.merged_watermark,
                self.emitted,
            )
        )
        return changes

    def _load_queries(self, records: Sequence[JoinedPage]) -> None:
        """Read the queries that are not in memory, in one sorted multi-get."""
        names = {record.query for record in records}
        self._accessed_queries |= names
        missing = sorted(name for name in names if name not in self._queries)
        stored = self._store.get_many([QUERY_KEY + name.encode() for name in missing])
        for name, value in zip(missing, stored, strict=True):
            self._queries[name] = QueryAggregates(value)
