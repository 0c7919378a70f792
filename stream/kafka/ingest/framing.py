"""The five bytes by which producers with a schema registry begin a value: a zero byte, and the schema's id."""

import struct
from typing import Final

from prectr.stream.convert.outcome import Unmappable

MAGIC: Final = 0
_HEADER: Final = struct.Struct(">BI")


def split_frame(value: bytes) -> tuple[int, bytes]:
    """Return the schema id of a value and what follows it.

    Raises Unmappable `not_framed` where the value does not begin with a zero byte and an id.
    """
    if len(value) < _HEADER.size or value[0] != MAGIC:
        raise Unmappable("not_framed", f"no zero byte and schema id at the start of {value[:20]!r}")
    _, schema_id = _HEADER.unpack_from(value)
    return schema_id, value[_HEADER.size :]
