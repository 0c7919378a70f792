"""Frames: what one task sends to one partition of the next topic in one transaction.

On the wire: one byte of format version, then a msgpack array. A frame of more than 512 KiB is split into numbered
parts; its watermark counts with the last.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from prectr.state.errors import StateError
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.ordering.watermark import SourceIdleness

FRAME_FORMAT: Final = 2
MAX_FRAME_BYTES: Final = 512 << 10
END_OF_LOG: Final = 1 << 53
"""In place of an offset: the log has ended for good, and everything has been put out."""

_encode = msgspec.msgpack.Encoder().encode


class Frame(msgspec.Struct, array_like=True, gc=False):
    """One frame, or one part of it.

    source: the task that sent it. sequence: of the source's frames to this partition, from 0, parts counted. last:
    whether it is the last part, with which `watermark` (ms) and what follows count. read: the offset up to which
    the source has read its own partition. silence: that it has nothing to say for now. ends: by `sessions` task,
    the offset of the events to which it was asked to read and has read, or END_OF_LOG; `queries` passes on what it
    has heard and put out. outcomes: cumulative, by `sessions` task; `queries` passes on what it has heard.
    out_of_order: records that came behind the source's own line so far. records: each an encoded record, in order.
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


def encode_frames(
    source: int,
    sequence: int,
    records: Sequence[bytes],
    watermark: int,
    *,
    read_offset: int = 0,
    idleness: SourceIdleness | None = None,
    reached_end_offsets: Mapping[int, int] | None = None,
    outcomes: Mapping[int, Outcomes] | None = None,
    late_records: int = 0,
) -> list[bytes]:
    """The parts of one frame, as they go on the wire; the next frame's sequence is `sequence` plus their number."""
    groups = list(_group_records(records))
    return [
        bytes((FRAME_FORMAT,))
        + _encode(
            Frame(
                source,
                sequence + part,
                part == len(groups) - 1,
                watermark,
                read_offset,
                idleness,
                dict(reached_end_offsets or {}),
                dict(outcomes or {}),
                late_records,
                [msgspec.Raw(record) for record in group],
            )
        )
        for part, group in enumerate(groups)
    ]


def decode_frame(value: bytes, source_name: str) -> Frame:
    """Read one part of a frame.

    Raises:
        StateError: it is of an unknown format version, or no frame; `where` (topic, partition, offset) is named.
    """
    if not value or value[0] != FRAME_FORMAT:
        found = value[0] if value else "nothing"
        raise StateError(
            f"{source_name}: a frame of format {found}, this program reads {FRAME_FORMAT}: run the version that wrote it, "
            "or make the topic anew"
        )
    try:
        return _decode(memoryview(value)[1:])
    except msgspec.MsgspecError as error:
        raise StateError(f"{source_name}: is no frame ({error}): something else writes to this topic") from error


def _group_records(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Records in groups that fit a frame each; a single larger record is a group of its own. One group at least."""
    group: list[bytes] = []
    size = 0
    for record in records:
        if group and size + len(record) > MAX_FRAME_BYTES:
            yield group
            group, size = [], 0
        group.append(record)
        size += len(record)
    yield group
