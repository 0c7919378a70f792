"""Stage `aggregate`: adds the query's aggregates as of the page's time, then counts the page.

A pure function of (records in the total order, state). A page sees every page of its query whose close time is ≤ its
own ts, and no later one.
"""

from collections.abc import Sequence
from typing import Final

from prectr.state.aggregates import LevelCounts, count_levels
from prectr.state.store import ReadableStore
from prectr.stream.aggregate.query_state import QueryAggregates
from prectr.stream.aggregate.source_frames import META_KEY, SourceFrames
from prectr.stream.config import PipelineConfig
from prectr.stream.ordering.frame_records import joined_pages_of
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.ordered_merge import OrderedMerge, Spill
from prectr.stream.ordering.watermark import SourceIdleness
from prectr.stream.records import Example, JoinedPage, decode_joined_page, encode_record

QUERY_KEY: Final = b"q"
MAX_BUFFERED_RECORDS: Final = 16_384
"""Records that a task's merge buffers in memory; the others are spilled to its store."""
CACHED_QUERIES: Final = 4_096
"""Queries that a task keeps in memory between micro-batches."""


class Aggregate(SourceFrames):
    """One task of the stage: `add` frames of its sources, `process`, then write `drain_changes` in one batch."""

    def __init__(self, config: PipelineConfig, store: ReadableStore, sources: int) -> None:
        """Restore the task from `store`. sources: number of tasks of stage `join`."""
        super().__init__(store, sources)
        self._half_lives = tuple(half_life * 1000 for half_life in config.half_lives)
        self._query_clicks = config.query_clicks
        self._time_to_live = round(config.query_ttl * 1000)
        self._store = store
        self._queries: dict[str, QueryAggregates] = {}
        self._accessed_queries: set[str] = set()
        self._merge: OrderedMerge[JoinedPage] = OrderedMerge(
            sources, Spill(store, decode_joined_page, MAX_BUFFERED_RECORDS), self.merged_watermark
        )

    @property
    def buffered(self) -> int:
        """Number of records in memory."""
        return self._merge.buffered

    @property
    def cached_queries(self) -> int:
        """Number of queries in memory."""
        return len(self._queries)

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

    def _add_part(
        self, frame: Frame, source_name: str, watermark: int, read_offset: int, idleness: SourceIdleness | None
    ) -> None:
        records = joined_pages_of(frame, source_name)
        self.add(frame.source, records, watermark, read_offset=read_offset, idleness=idleness)

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

    def process_encoded(self, committed: int) -> tuple[list[bytes], LevelCounts]:
        """As `process`, for the wire.

        Args:
            committed: number of examples that were emitted and committed before: those are left out.

        Returns:
            The other examples, encoded, and their impressions and clicks by level.
        """
        emitted_before = self.emitted
        examples = self.process()[max(0, committed - emitted_before) :]
        return [encode_record(example) for example in examples], count_levels_of_pages(examples)

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call, including sequences and offset."""
        changes = self._merge.drain_changes()
        for name in self._accessed_queries:
            changes[QUERY_KEY + name.encode()] = self._queries[name].encode()
        if len(self._queries) > CACHED_QUERIES:
            self._queries = {name: query for name, query in self._queries.items() if name in self._accessed_queries}
        self._accessed_queries.clear()
        changes[META_KEY] = self.encode_meta()
        return changes

    def _load_queries(self, records: Sequence[JoinedPage]) -> None:
        """Read the queries that are not in memory, in one sorted multi-get."""
        names = {record.query for record in records}
        self._accessed_queries |= names
        missing = sorted(name for name in names if name not in self._queries)
        stored = self._store.get_many([QUERY_KEY + name.encode() for name in missing])
        for name, value in zip(missing, stored, strict=True):
            self._queries[name] = QueryAggregates(value)


def count_levels_of_pages(examples: Sequence[Example]) -> LevelCounts:
    """Count impressions and clicks by level of many pages."""
    return count_levels(
        b"".join([example.levels for example in examples]), b"".join([example.labels for example in examples])
    )
