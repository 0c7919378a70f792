"""Stage `aggregate` in C++: `prectr.stream.aggregate.operator.Aggregate` is its specification."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from prectr.state.aggregates import LevelCounts
from prectr.state.errors import StateError
from prectr.state.store import ReadableStore
from prectr.stream.aggregate import operator
from prectr.stream.aggregate.operator import QUERY_KEY
from prectr.stream.aggregate.source_frames import META_KEY, SourceFrames
from prectr.stream.config import PipelineConfig
from prectr.stream.native import core
from prectr.stream.ordering.frame_records import joined_pages_of
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.ordered_merge import AFTER_BUFFERED, BUFFERED
from prectr.stream.ordering.watermark import SourceIdleness, observe
from prectr.stream.records import Example, JoinedPage, decode_example, encode_record

_UNCHECKED: Final = False
_CHECKED: Final = True


class NativeAggregate(SourceFrames):
    """One task of the stage, as `Aggregate`."""

    def __init__(self, config: PipelineConfig, store: ReadableStore, sources: int) -> None:
        """Restore the task from `store`. sources: number of tasks of stage `join`."""
        super().__init__(store, sources)
        self._store = store
        self._max_buffered = operator.MAX_BUFFERED_RECORDS
        self._core = core.Aggregate(
            sources,
            [half_life * 1000 for half_life in config.half_lives],
            config.query_clicks,
            round(config.query_ttl * 1000),
            self._max_buffered,
            operator.CACHED_QUERIES,
        )
        self._load_spilled(BUFFERED)

    @property
    def buffered(self) -> int:
        """Number of records in memory."""
        return self._core.buffered()

    @property
    def cached_queries(self) -> int:
        """Number of queries in memory."""
        return self._core.cached_queries()

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
        encoded = [encode_record(record) for record in records]
        self.merged_watermark.late_records += self._core.add(source, encoded, self.merged_watermark.watermark, _CHECKED)
        self._observe(source, watermark, read_offset, idleness)

    def _add_part(
        self, frame: Frame, source_name: str, watermark: int, read_offset: int, idleness: SourceIdleness | None
    ) -> None:
        merged = self.merged_watermark
        try:
            merged.late_records += self._core.add(frame.source, frame.records, merged.watermark, _UNCHECKED)
        except StateError:
            # What is unusual is for Python to judge, and to word.
            records = joined_pages_of(frame, source_name)
            self.add(frame.source, records, watermark, read_offset=read_offset, idleness=idleness)
            return
        self._observe(frame.source, watermark, read_offset, idleness)

    def _observe(self, source: int, watermark: int, read_offset: int, idleness: SourceIdleness | None) -> None:
        observe(self.merged_watermark, source, watermark, read_offset, idleness)
        self.next_sequences[source] += 1

    def process(self) -> list[Example]:
        """Emit an example for each record that is due, in the total order, and advance the watermark."""
        encoded, _ = self.process_encoded(0)
        return [decode_example(example) for example in encoded]

    def process_encoded(self, committed: int) -> tuple[list[bytes], LevelCounts]:
        """As `Aggregate.process_encoded`."""
        watermark = self.merged_watermark.watermark
        spilled = self._core.to_load(watermark)
        if spilled is not None:
            self._load_spilled(spilled)
        self.watermark = self._core.release(watermark)
        names = self._core.missing()
        if names:
            self._core.load(names, self._store.get_many([QUERY_KEY + name for name in names]))
        already_committed = committed - self.emitted
        self.emitted += self._core.due()
        return self._core.process(already_committed)

    def drain_changes(self) -> dict[bytes, bytes | None]:
        """Return the changes of the store since the last call, including sequences and offset."""
        changes = self._core.changes()
        changes[META_KEY] = self.encode_meta()
        return changes

    def _load_spilled(self, start: bytes) -> None:
        stored = islice(self._store.scan(start, AFTER_BUFFERED), self._max_buffered // 2 + 1)
        self._core.load_spilled([record for _, record in stored])
