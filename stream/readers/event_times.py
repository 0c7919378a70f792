"""The times by which the events of a file take their place among those of other files."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.event_time import MAX_TS, MIN_TS

NO_TIME: Final = -(1 << 62)
"""Of a line that is no event; it follows the line before it."""
LOOKAHEAD: Final = 32
"""Lines after an event by which a wrong clock is told from a pause of the file."""
MAX_AHEAD: Final = 3_600_000
"""How far a right clock can be ahead of the events that follow in its file, in ms."""
_NEVER: Final = 1 << 62


class _Timed(msgspec.Struct, gc=False):
    ts: Annotated[int, Meta(ge=MIN_TS, le=MAX_TS)]


_decode_timed = msgspec.json.Decoder(_Timed).decode


def event_times(lines: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return the event time of each line in ms; `NO_TIME` for a line without one."""
    times = []
    for line in lines:
        try:
            times.append(_decode_timed(line).ts)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            (event,) = decode_lines([line])
            times.append(NO_TIME if isinstance(event, InvalidEvent) else event.ts)
    return np.array(times, dtype=np.int64)


def merge_keys(times: npt.NDArray[np.int64], count: int, floor: int) -> list[int]:
    """Return, for the first `count` lines of a file's rest, the times by which they are merged; they never fall.

    An event has its own time, except where its file is ahead of it: then it follows the line before it at once. So does
    an event whose clock is ahead of its file: by more than `MAX_AHEAD` of most of the events that follow within
    `LOOKAHEAD` lines. Otherwise one wrong clock would hold back all that follows in the file.

    Args:
        times: of these lines and up to `LOOKAHEAD` lines that follow, from `event_times`; int64 [lines].
        count: number of lines that are due.
        floor: key of the line before; `NO_TIME` at the start of the file.
    """
    if not count:
        return []
    if (times[1:] >= times[:-1]).all():
        in_order: list[int] = np.maximum(times[:count], floor).tolist()
        return in_order
    keys = times[:count].copy()
    keys[_ahead(times)[:count]] = NO_TIME
    keys[0] = max(int(keys[0]), floor)
    np.maximum.accumulate(keys, out=keys)
    found: list[int] = keys.tolist()
    return found


def _ahead(times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which events are more than `MAX_AHEAD` ahead of most of those that follow."""
    ahead = np.zeros(len(times), dtype=np.bool_)
    valid = np.where(times == NO_TIME, _NEVER, times)
    if len(times) < 2:
        return ahead
    earliest_after = np.minimum.accumulate(valid[::-1])[::-1]
    suspects = np.flatnonzero((times[:-1] - MAX_AHEAD > earliest_after[1:]) & (times[:-1] != NO_TIME))
    if not len(suspects):
        return ahead
    padded = np.concatenate((valid[1:], np.full(LOOKAHEAD, _NEVER)))
    for start in range(0, len(suspects), 1024):
        some = suspects[start : start + 1024]
        following = padded[some[:, None] + np.arange(LOOKAHEAD)]
        earlier = (following < (times[some] - MAX_AHEAD)[:, None]).sum(axis=1)
        ahead[some] = 2 * earlier > (following != _NEVER).sum(axis=1)
    return ahead
