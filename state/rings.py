"""Bounded rings of encoded entries: what a page's snapshot shows of the past, without decoding it."""

from collections.abc import Sequence


def encode_array(entries: Sequence[bytes]) -> bytes:
    """A msgpack array of entries that are msgpack already."""
    count = len(entries)
    if count < 16:
        return bytes((0x90 | count,)) + b"".join(entries)
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big") + b"".join(entries)
    return b"\xdd" + count.to_bytes(4, "big") + b"".join(entries)


def append_bounded(ring: list[bytes], entries: Sequence[bytes], size: int) -> None:
    """Append to a ring that holds the last `size` entries."""
    ring.extend(entries)
    if len(ring) > size:
        del ring[: len(ring) - size]
