"""What a task of stage `aggregate` knows of its sources, the tasks of stage `join`; nothing of it is about a query."""

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from prectr.state.errors import Remedy, StateError
from prectr.state.store import ReadableStore
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.frames import Frame
from prectr.stream.ordering.watermark import MergedWatermark, SourceIdleness, advance, initial_watermark

META_KEY: Final = b"m"

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


class SourceFrames(ABC):
    """Takes the frames of the sources in their sequence."""

    def __init__(self, store: ReadableStore, sources: int) -> None:
        """Restore from `store`. sources: number of tasks of stage `join`."""
        (stored,) = store.get_many([META_KEY])
        meta = AggregateMeta([0] * sources) if stored is None else _decode_meta(stored)
        self.next_sequences = meta.next_sequences
        self.next_offset = meta.next_offset
        self.outcomes = meta.outcomes
        self.reached_end_offsets = meta.reached_end_offsets
        self.emitted = meta.emitted
        self.merged_watermark = meta.merged_watermark or initial_watermark(sources)
        self.watermark = MIN_WATERMARK
        """The time up to which every example has been emitted (ms)."""

    @property
    def has_backlog(self) -> bool:
        """Whether more records are due than fit in memory: call `process` again after writing the changes."""
        return self.watermark < self.merged_watermark.watermark

    @property
    def max_source_watermark(self) -> int:
        """The largest watermark that any source has reported (ms)."""
        return max(
            (watermark for watermark in self.merged_watermark.source_watermarks if watermark < MAX_WATERMARK),
            default=MIN_WATERMARK,
        )

    @property
    def late_records(self) -> int:
        """Records that arrived behind the merged watermark."""
        return self.merged_watermark.late_records

    def add_frame(self, frame: Frame, source_name: str = "joined-pages") -> None:
        """Add one part of a frame from the topic.

        Args:
            source_name: where it was read (topic, partition, offset), for the error.

        Raises:
            StateError: a frame is missing or repeated, which only a corrupt topic can cause, or a record is damaged.
        """
        source = frame.source
        due = self.next_sequences[source]
        if frame.sequence != due:
            raise StateError(
                f"{source_name}: frame {frame.sequence} of join task {source} arrived where {due} was due: "
                "the topic has lost or repeated records and must be rebuilt from search-events",
                Remedy.OTHER_TOPIC_PREFIX,
            )
        if frame.is_last_part:
            self._add_part(frame, source_name, frame.watermark, frame.read_offset, frame.idleness)
            self.outcomes |= frame.outcomes
            self.reached_end_offsets |= frame.reached_end_offsets
        else:
            # The source's new read offset takes effect with its watermark, in the last part.
            history = self.merged_watermark.watermark_history[source]
            last_read_offset = history[-1][0] if history else 0
            self._add_part(frame, source_name, self.merged_watermark.source_watermarks[source], last_read_offset, None)

    @abstractmethod
    def _add_part(
        self, frame: Frame, source_name: str, watermark: int, read_offset: int, idleness: SourceIdleness | None
    ) -> None:
        """Add the records of a frame, with the progress of its source.

        Raises:
            StateError: a record is damaged; nothing was added.
        """

    def end_source(self, source: int) -> None:
        """Mark a source as read to its end, so that it no longer holds the merged watermark back."""
        self.merged_watermark.source_watermarks[source] = MAX_WATERMARK
        advance(self.merged_watermark)

    def encode_meta(self) -> bytes:
        """Encode the task's own entry in the store."""
        return _encode(
            AggregateMeta(
                self.next_sequences,
                self.next_offset,
                self.reached_end_offsets,
                self.outcomes,
                self.merged_watermark,
                self.emitted,
            )
        )
