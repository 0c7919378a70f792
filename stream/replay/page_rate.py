"""How dense a log is, judged by the heads of its files."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from prectr.state.errors import InputError
from prectr.stream.events.contract import ResultPage
from prectr.stream.events.decode import decode_lines
from prectr.stream.readers import LogFile

_MAX_FILES: Final = 32
_HEAD_LINES: Final = 2_048
_TRIMMED: Final = 0.05
"""Share of the pages of a head that are left out at either end, so that a few wrong clocks change nothing."""
_MIN_PAGES: Final = 16
"""Pages of a head below which it says nothing."""
_MS_PER_MINUTE: Final = 60_000.0


def page_rate(files: Sequence[LogFile]) -> float | None:
    """Pages per minute of event time where the log begins; None if too few pages were found.

    Of the first 32 files: those whose heads overlap in time with the head that begins first are parts of one stream,
    such as the dumps of a topic's partitions, so their rates add up.
    """
    heads = [head for file in files[:_MAX_FILES] if (head := _head(file)) is not None]
    if not heads:
        return None
    first_start, first_end, _ = min(heads)
    return sum(rate for start, end, rate in heads if start <= first_end and end >= first_start)


def _head(file: LogFile) -> tuple[float, float, float] | None:
    """Start and end of a file's head, in ms, and its pages per minute; None if it has too few pages."""
    times = np.sort(np.fromiter(_page_times(file), dtype=np.float64))
    trimmed = int(len(times) * _TRIMMED)
    times = times[trimmed : len(times) - trimmed]
    if len(times) < _MIN_PAGES:
        return None
    start, end = float(times[0]), float(times[-1])
    return start, end, (len(times) - 1) / max(end - start, 1.0) * _MS_PER_MINUTE


def _page_times(file: LogFile) -> Iterable[int]:
    try:
        batch = next(file.batches(0, _HEAD_LINES), None)
    except InputError:
        # The replay reads what can be read and reports the rest.
        return []
    return [] if batch is None else [event.ts for event in decode_lines(batch.lines) if isinstance(event, ResultPage)]
