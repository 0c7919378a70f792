"""The line of a merge: the time up to which all of its sources have spoken, or are known to have been silent.

A silent source is left out only for what the others had read when its silence was established. So a pause of the
whole log lifts the line past nobody: whoever is read first afterwards waits for the others to be read, or to be
found silent again.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME

_REMEMBERED: Final = 256
"""Steps of a source that are kept while another is silent; beyond, every other one goes, which only delays."""


class Silence(msgspec.Struct, array_like=True, frozen=True):
    """A source's word that nothing was unread in its partition when the logs of all sources reached to `seen`.

    seen: by source, offset behind the last record of its partition then. bound: nothing that the source still holds
    closes up to this time (ms); `END_OF_TIME` where nobody is to wait for what it holds.
    """

    seen: list[int]
    bound: int


class LineProgress(msgspec.Struct, array_like=True):
    """How far a merge's sources have come.

    watermarks: of each source (ms). silences: of each source, or None. steps: of each source, (offset up to which it
    had read, watermark then), as far back as a silence may ask. line: the highest so far (ms). out_of_order: records
    that came behind the line.
    """

    watermarks: list[int]
    silences: list[Silence | None]
    steps: list[list[tuple[int, int]]]
    line: int = BEFORE_TIME
    out_of_order: int = 0


def no_progress(sources: int) -> LineProgress:
    """Nothing heard from anybody."""
    return LineProgress([BEFORE_TIME] * sources, [None] * sources, [[] for _ in range(sources)])


def hear(progress: LineProgress, source: int, watermark: int, read: int, silence: Silence | None) -> None:
    """A source has read its partition up to the offset `read`, and stands at `watermark`."""
    marks = progress.watermarks
    if watermark > marks[source]:
        marks[source] = watermark
    progress.silences[source] = silence
    steps = progress.steps[source]
    mark = marks[source]
    # What has ended for good tells nothing of how far the others' time has come.
    if mark < END_OF_TIME and (not steps or steps[-1] != (read, mark)):
        steps.append((read, mark))
    _forget(steps, source, progress.silences)
    move(progress)


def move(progress: LineProgress) -> None:
    """Lift the line to where the sources allow it; it never goes back."""
    if any(progress.silences):
        line = min(_allowed(progress, source) for source in range(len(progress.watermarks)))
    else:
        line = min(progress.watermarks)
    if line > progress.line:
        progress.line = line


def _allowed(progress: LineProgress, source: int) -> int:
    """How far a source lets the line go."""
    watermark, silence = progress.watermarks[source], progress.silences[source]
    if silence is None or silence.bound <= watermark:
        return watermark
    others = max(
        (_standing(steps, silence.seen[other]) for other, steps in enumerate(progress.steps) if other != source),
        default=BEFORE_TIME,
    )
    return max(watermark, min(silence.bound, others))


def _standing(steps: Sequence[tuple[int, int]], read: int) -> int:
    """The watermark of a source when it had read no further than the offset `read`."""
    return next((watermark for at, watermark in reversed(steps) if at <= read), BEFORE_TIME)


def _forget(steps: list[tuple[int, int]], source: int, silences: Sequence[Silence | None]) -> None:
    """Drop the steps for which no silence asks."""
    asked = min((silence.seen[source] for silence in silences if silence is not None), default=END_OF_TIME)
    while len(steps) > 1 and steps[1][0] <= asked:
        del steps[0]
    if len(steps) > _REMEMBERED:
        del steps[1:-1:2]
