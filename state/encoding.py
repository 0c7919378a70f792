"""Byte encodings: keys that sort as the values they encode, and arrays of entries that are already msgpack."""

from collections.abc import Sequence
from typing import Final

DAMAGE: Final = (ValueError, RecursionError, OverflowError, MemoryError)
"""What a decoder may raise for bytes that were damaged or forged: the errors of msgspec and of UTF-8 are ValueErrors,
nested arrays exhaust the stack, and a length may exceed the memory."""


def encode_order_key(closes_at: int, request_id: str, user_id: str) -> bytes:
    """Encode a record's position in the total order as bytes that sort like (closes_at, request_id, user_id).

    Ids compare by their UTF-8 bytes. A NUL inside an id becomes NUL 0xFF and each id ends with NUL NUL, so that no
    id is a prefix of the next field.

    Args:
        closes_at: close time in ms, any signed 64-bit integer.
    """
    return b"".join(
        (
            (closes_at + (1 << 63)).to_bytes(8, "big"),
            request_id.encode().replace(b"\0", b"\0\xff"),
            b"\0\0",
            user_id.encode().replace(b"\0", b"\0\xff"),
            b"\0\0",
        )
    )


def encode_array(entries: Sequence[bytes]) -> bytes:
    """Encode entries that are already msgpack as one msgpack array."""
    count = len(entries)
    if count < 16:
        return bytes((0x90 | count,)) + b"".join(entries)
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big") + b"".join(entries)
    return b"\xdd" + count.to_bytes(4, "big") + b"".join(entries)


def append_bounded(ring: list[bytes], entries: Sequence[bytes], size: int) -> None:
    """Append encoded entries to a ring buffer that keeps the last `size` of them."""
    ring.extend(entries)
    if len(ring) > size:
        del ring[: len(ring) - size]
