"""The line of a merge: the time up to which all of its sources have spoken, or are known to have been silent.

A silent source is left out only for what the others had read when its silence was established. So a pause of the
whole log lifts the line past nobody: whoever is read first afterwards waits for the others to be read, or to be
found silent again.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK

_MAX_HISTORY: Final = 256
"""Steps of a source that are kept while another is silent; beyond, every other one goes, which only delays."""


class SourceIdleness(msgspec.Struct, array_like=True, frozen=True):
    """A source's word that nothing was unread in its partition when the logs of all sources reached to `seen`.

    seen: by source, offset behind the last record of its partition then. bound: nothing that the source still holds
    closes up to this time (ms); `END_OF_TIME` where nobody is to wait for what it holds.
    """

    observed_offsets: list[int]
    hold_until: int


class MergedWatermark(msgspec.Struct, array_like=True):
    """How far a merge's sources have come.

    watermarks: of each source (ms). silences: of each source, or None. steps: of each source, (offset up to which it
    had read, watermark then), as far back as a silence may ask. line: the highest so far (ms). out_of_order: records
    that came behind the line.
    """

    source_watermarks: list[int]
    idleness: list[SourceIdleness | None]
    watermark_history: list[list[tuple[int, int]]]
    watermark: int = MIN_WATERMARK
    late_records: int = 0


def initial_watermark(sources: int) -> MergedWatermark:
    """Nothing heard from anybody."""
    return MergedWatermark([MIN_WATERMARK] * sources, [None] * sources, [[] for _ in range(sources)])


def observe(
    merged: MergedWatermark, source: int, watermark: int, read_offset: int, idleness: SourceIdleness | None
) -> None:
    """A source has read its partition up to the offset `read`, and stands at `watermark`."""
    watermarks = merged.source_watermarks
    if watermark > watermarks[source]:
        watermarks[source] = watermark
    merged.idleness[source] = idleness
    history = merged.watermark_history[source]
    source_watermark = watermarks[source]
    # What has ended for good tells nothing of how far the others' time has come.
    if source_watermark < MAX_WATERMARK and (not history or history[-1] != (read_offset, source_watermark)):
        history.append((read_offset, source_watermark))
    _trim_history(history, source, merged.idleness)
    advance(merged)


def advance(merged: MergedWatermark) -> None:
    """Lift the line to where the sources allow it; it never goes back."""
    if any(merged.idleness):
        watermark = min(_source_limit(merged, source) for source in range(len(merged.source_watermarks)))
    else:
        watermark = min(merged.source_watermarks)
    if watermark > merged.watermark:
        merged.watermark = watermark


def _source_limit(merged: MergedWatermark, source: int) -> int:
    """How far a source lets the line go."""
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
    """The watermark of a source when it had read no further than the offset `read`."""
    return next((watermark for offset, watermark in reversed(history) if offset <= read_offset), MIN_WATERMARK)


def _trim_history(history: list[tuple[int, int]], source: int, idleness: Sequence[SourceIdleness | None]) -> None:
    """Drop the steps for which no silence asks."""
    oldest_needed = min((each.observed_offsets[source] for each in idleness if each is not None), default=MAX_WATERMARK)
    while len(history) > 1 and history[1][0] <= oldest_needed:
        del history[0]
    if len(history) > _MAX_HISTORY:
        del history[1:-1:2]
