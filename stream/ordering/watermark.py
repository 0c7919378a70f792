"""The merged watermark: the time up to which all sources of a merge have reported, or are known to have been idle.

Unlike with Flink's `withIdleness`, an idle source is left out only for what the others had read when its idleness was
established. So a pause of the whole log does not advance the watermark past any source: the source that is read first
afterwards waits until the others are read or found idle again.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK

Offset = Annotated[int, Meta(ge=0, le=1 << 62)]
Watermark = Annotated[int, Meta(ge=MIN_WATERMARK, le=MAX_WATERMARK)]

_MAX_HISTORY: Final = 256
"""Entries of a source's history kept while another is idle; beyond that every other one is dropped, which can only
delay the watermark."""


class SourceIdleness(msgspec.Struct, array_like=True, frozen=True):
    """A source's statement that its partition had no unread record when all partitions ended at `observed_offsets`.

    Attributes:
        observed_offsets: by source, the end offset of its partition then.
        hold_until: no pending page of the source closes up to this time (ms); `MAX_WATERMARK` if its pending pages
            are not to hold the watermark back.
    """

    observed_offsets: list[Offset]
    hold_until: Watermark


class MergedWatermark(msgspec.Struct, array_like=True):
    """The progress of a merge's sources.

    Attributes:
        source_watermarks: of each source (ms).
        idleness: of each source; None while it is not idle.
        watermark_history: of each source, (read offset, watermark then), as far back as an idleness may refer to.
        watermark: the merged watermark, the highest so far (ms).
        late_records: records that arrived behind the merged watermark.
    """

    source_watermarks: list[int]
    idleness: list[SourceIdleness | None]
    watermark_history: list[list[tuple[int, int]]]
    watermark: int = MIN_WATERMARK
    late_records: int = 0


def initial_watermark(sources: int) -> MergedWatermark:
    """Return the progress before any report."""
    return MergedWatermark([MIN_WATERMARK] * sources, [None] * sources, [[] for _ in range(sources)])


def observe(
    merged: MergedWatermark, source: int, watermark: int, read_offset: int, idleness: SourceIdleness | None
) -> None:
    """Process a source's report: it has read its partition up to `read_offset` and is at `watermark` (ms)."""
    watermarks = merged.source_watermarks
    if watermark > watermarks[source]:
        watermarks[source] = watermark
    merged.idleness[source] = idleness
    history = merged.watermark_history[source]
    source_watermark = watermarks[source]
    # The end of a source says nothing about the event time that the others have reached.
    if source_watermark < MAX_WATERMARK and (not history or history[-1] != (read_offset, source_watermark)):
        history.append((read_offset, source_watermark))
    _trim_history(history, source, merged.idleness)
    advance(merged)


def advance(merged: MergedWatermark) -> None:
    """Advance the merged watermark as far as the sources allow; it never decreases."""
    if any(merged.idleness):
        watermark = min(_source_limit(merged, source) for source in range(len(merged.source_watermarks)))
    else:
        watermark = min(merged.source_watermarks)
    if watermark > merged.watermark:
        merged.watermark = watermark


def _source_limit(merged: MergedWatermark, source: int) -> int:
    """Return the time up to which a source allows the merged watermark to advance (ms)."""
    watermark, idleness = merged.source_watermarks[source], merged.idleness[source]
    if idleness is None or idleness.hold_until <= watermark:
        return watermark
    others = max(
        (
            _watermark_at(history, idleness.observed_offsets[other])
            for other, history in enumerate(merged.watermark_history)
            if other != source
        ),
        default=MIN_WATERMARK,
    )
    return max(watermark, min(idleness.hold_until, others))


def _watermark_at(history: Sequence[tuple[int, int]], read_offset: int) -> int:
    """Return the watermark of a source when it had read no further than `read_offset`."""
    return next((watermark for offset, watermark in reversed(history) if offset <= read_offset), MIN_WATERMARK)


def _trim_history(history: list[tuple[int, int]], source: int, idleness: Sequence[SourceIdleness | None]) -> None:
    """Drop the history entries that no idleness refers to."""
    oldest_needed = min((each.observed_offsets[source] for each in idleness if each is not None), default=MAX_WATERMARK)
    while len(history) > 1 and history[1][0] <= oldest_needed:
        del history[0]
    if len(history) > _MAX_HISTORY:
        del history[1:-1:2]
