"""Frames: what one task sends to one partition of the next topic in one transaction.

Wire format: one byte of format version, then a msgpack array. A frame of more than 512 KiB is split into numbered
parts; its watermark and the rest of its progress take effect with the last part.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from prectr.state.errors import Remedy, StateError
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.watermark import SourceIdleness

FRAME_FORMAT: Final = 2
MAX_FRAME_BYTES: Final = 512 << 10
END_OF_LOG: Final = 1 << 53
"""In place of an offset: the log has ended for good, and everything has been emitted."""

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

    source: int
    sequence: int
    is_last_part: bool
    watermark: int
    read_offset: int
    idleness: SourceIdleness | None
    reached_end_offsets: dict[int, int]
    outcomes: dict[int, Outcomes]
    late_records: int
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


def decode_frame(value: bytes, source_name: str) -> Frame:
    """Decode one part of a frame.

    Args:
        source_name: where it was read (topic, partition, offset), for the error.

    Raises:
        StateError: the bytes are no frame, or one of an unknown format version.
    """
    if not value or value[0] != FRAME_FORMAT:
        found = value[0] if value else "nothing"
        raise StateError(
            f"{source_name}: a frame of format {found}, this program reads {FRAME_FORMAT}: "
            "run the version that wrote it,",
            Remedy.OTHER_TOPIC_PREFIX,
        )
    try:
        return _decode(memoryview(value)[1:])
    except msgspec.MsgspecError as error:
        raise StateError(f"{source_name}: not a frame ({error}): another program writes to this topic") from error


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
