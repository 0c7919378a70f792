"""Frames: what one task sends to one partition of the next topic in one transaction.

Wire format: one byte of format version, then a msgpack array. A frame of more than 512 KiB is split into numbered
parts; its watermark and the rest of its progress take effect with the last part.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from prectr.state.encoding import DAMAGE
from prectr.state.errors import Remedy, StateError
from prectr.state.setting import YEAR
from prectr.stream.config import MAX_PARTITIONS
from prectr.stream.events.event_time import MIN_TS
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.outcomes import Count, Outcomes
from prectr.stream.ordering.watermark import Offset, SourceIdleness, Watermark
from prectr.stream.records import MAX_CLOSES_AT

FRAME_FORMAT: Final = 2
MAX_FRAME_BYTES: Final = 512 << 10
END_OF_LOG: Final = 1 << 53
"""In place of an offset: the log has ended for good, and everything has been emitted."""

_FIRST_PRINTABLE: Final = 0x20
"""No format has such a number: the record is text, such as JSON, of another program."""
_FIRST_WATERMARK: Final = MIN_TS - round(YEAR * 1000)
"""The first event time of the contract less the greatest `allowed_lateness`."""

Task = Annotated[int, Meta(ge=0, lt=MAX_PARTITIONS)]

_encode = msgspec.msgpack.Encoder().encode


class SourceProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the task that sends a frame has come.

    Attributes:
        watermark: in ms.
        read_offset: offset up to which the task has read its own partition.
        idleness: set while the task has nothing to read.
        reached_end_offsets: by `join` task, the end offset of the events that it was requested to read to and has
            reached, or END_OF_LOG; `aggregate` forwards those that it has received and processed.
        outcomes: cumulative, by `join` task; `aggregate` forwards the latest that it has received.
        late_records: records that arrived behind the task's own merged watermark so far.
    """

    watermark: int
    read_offset: int = 0
    idleness: SourceIdleness | None = None
    reached_end_offsets: dict[int, int] = {}
    outcomes: dict[int, Outcomes] = {}
    late_records: int = 0


class Frame(msgspec.Struct, array_like=True, gc=False):
    """One frame, or one part of it. The fields that are not listed are those of `SourceProgress`.

    Attributes:
        source: the task that sent it.
        sequence: number among the source's frames to this partition, from 0; each part has its own.
        is_last_part: whether the frame's progress takes effect with this part.
        records: each an encoded record, in the total order.
    """

    source: Task
    sequence: Offset
    is_last_part: bool
    watermark: Watermark
    read_offset: Offset
    idleness: SourceIdleness | None
    reached_end_offsets: dict[Task, Annotated[int, Meta(ge=0, le=END_OF_LOG)]]
    outcomes: dict[Task, Outcomes]
    late_records: Count
    records: list[msgspec.Raw]


_decode = msgspec.msgpack.Decoder(Frame).decode


def encode_frames(source: int, sequence: int, records: Sequence[bytes], progress: SourceProgress) -> list[bytes]:
    """Encode a frame as its parts; the next frame's sequence is `sequence` plus the number of parts."""
    groups = list(_group_records(records))
    return [
        bytes((FRAME_FORMAT,))
        + _encode(
            Frame(
                source,
                sequence + part,
                part == len(groups) - 1,
                progress.watermark,
                progress.read_offset,
                progress.idleness,
                progress.reached_end_offsets,
                progress.outcomes,
                progress.late_records,
                [msgspec.Raw(record) for record in group],
            )
        )
        for part, group in enumerate(groups)
    ]


def decode_frame(value: bytes, source_name: str, tasks: int | None = None) -> Frame:
    """Decode one part of a frame, and check that every number in it can be right. Its records stay encoded.

    Args:
        source_name: where it was read (topic, partition, offset), for the error.
        tasks: number of tasks of a stage; None where it is not known.

    Raises:
        StateError: the bytes are no frame, or one of an unknown format version.
    """
    if value and value[0] >= _FIRST_PRINTABLE:
        raise damaged_frame(source_name, ValueError(f"it begins with {value[:16]!r}"))
    if not value or value[0] != FRAME_FORMAT:
        found = value[0] if value else "nothing"
        raise StateError(
            f"{source_name}: a frame of format {found}, this program reads {FRAME_FORMAT}: "
            "run the version that wrote it,",
            Remedy.OTHER_TOPIC_PREFIX,
        )
    try:
        frame = _decode(memoryview(value)[1:])
        if tasks is not None:
            _check_tasks(frame, tasks)
        _check_time(frame.watermark)
    except DAMAGE as error:
        raise damaged_frame(source_name, error) from error
    return frame


def damaged_frame(source_name: str, error: Exception) -> StateError:
    """Return the error for a frame, or a record in it, that no task of this system has written.

    Args:
        source_name: where it was read (topic, partition, offset).
        error: what is wrong with it.
    """
    # A MemoryError has no text.
    reason = str(error) or type(error).__name__
    return StateError(
        f"{source_name}: not a frame ({reason}): another program writes to this topic, and what follows cannot be "
        "trusted. Keep it from writing there, then",
        Remedy.START_OVER_LIVE,
    )


def _check_tasks(frame: Frame, tasks: int) -> None:
    for task in (frame.source, *frame.reached_end_offsets, *frame.outcomes):
        if task >= tasks:
            raise ValueError(f"it is of task {task}, and the last one is {tasks - 1}")
    if frame.idleness is not None and len(frame.idleness.observed_offsets) != tasks:
        raise ValueError(f"it observes {len(frame.idleness.observed_offsets)} partitions, not {tasks}")


def _check_time(watermark: int) -> None:
    if watermark not in (MIN_WATERMARK, MAX_WATERMARK) and not _FIRST_WATERMARK <= watermark <= MAX_CLOSES_AT:
        raise ValueError(f"its watermark {watermark} is not a time of the years 2000 to 9999 in milliseconds")


def _group_records(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Group the records so that each group fits a frame; a larger record is a group of its own. At least one group."""
    group: list[bytes] = []
    size = 0
    for record in records:
        if group and size + len(record) > MAX_FRAME_BYTES:
            yield group
            group, size = [], 0
        group.append(record)
        size += len(record)
    yield group
