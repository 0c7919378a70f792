"""Decompresses the records of a Kafka batch, up to a limit: a few kilobytes can stand for gigabytes."""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from kafka.errors import CorruptRecordError, UnsupportedCodecError

MAX_BATCH_BYTES: Final = 256 << 20
"""Decompressed. A producer that honours `max.request.size`, 1 MiB by default, writes no batch that is larger."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_CHUNK_BYTES: Final = 1 << 20
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_BLOCK_LENGTH: Final = struct.Struct(">i")
_NAMES: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class _TooLargeError(Exception):
    pass


def decompress(codec: int, data: bytes, limit: int = MAX_BATCH_BYTES) -> bytes:
    """Decompress the records of a batch.

    Args:
        codec: number in the attributes of the batch.
        limit: bytes that the result may have.

    Raises:
        UnsupportedCodecError: there is no such codec, or its library is not installed.
        CorruptRecordError: the data are damaged, or exceed the limit when decompressed.
    """
    name = _NAMES.get(codec)
    if name is None:
        raise UnsupportedCodecError(f"Unrecognized compression type: {codec}")
    try:
        return _DECOMPRESSORS[name](data, limit)
    except ImportError:
        raise UnsupportedCodecError(f"Libraries for {name} compression codec not found") from None
    except _TooLargeError:
        raise CorruptRecordError(f"{len(data):,} bytes of {name} decompress to more than {limit:,}") from None
    except Exception as error:  # each library has errors of its own
        raise CorruptRecordError(f"{name}: {error}") from error


def _gzip(data: bytes, limit: int) -> bytes:
    return _concatenated(data, limit, lambda: zlib.decompressobj(_GZIP))


def _lz4(data: bytes, limit: int) -> bytes:
    from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]  # noqa: PLC0415

    return _concatenated(data, limit, LZ4FrameDecompressor)


def _concatenated(data: bytes, limit: int, new_decompressor: Callable[[], Any]) -> bytes:
    """Decompress members or frames that follow each other."""
    parts: list[bytes] = []
    size = 0
    while data or not parts:
        decompressor = new_decompressor()
        parts.append(decompressor.decompress(data, limit - size + 1))
        size += len(parts[-1])
        if size > limit:
            raise _TooLargeError
        if not decompressor.eof:
            raise EOFError("the end is missing")
        data = decompressor.unused_data or b""
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _zstd(data: bytes, limit: int) -> bytes:
    import zstandard  # noqa: PLC0415

    parts, size = [], 0
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        while part := reader.read(_CHUNK_BYTES):
            size += len(part)
            if size > limit:
                raise _TooLargeError
            parts.append(part)
    return b"".join(parts)


def _snappy(data: bytes, limit: int) -> bytes:
    import snappy  # type: ignore[import-untyped]  # noqa: PLC0415

    parts, size = [], 0
    for block in _snappy_blocks(data):
        size += _uncompressed_size(block)
        if size > limit:
            raise _TooLargeError
        parts.append(snappy.decompress(block))
    return b"".join(parts)


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    """The blocks of the framing that the Java client's library writes, or the data as one block."""
    if not (data.startswith(_XERIAL_MAGIC) and len(data) > _XERIAL_HEADER_BYTES):
        yield data
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        (length,) = _BLOCK_LENGTH.unpack_from(data, at)
        at += _BLOCK_LENGTH.size
        if not 0 <= length <= len(data) - at:
            raise ValueError(f"a block of {length} bytes, of which {len(data) - at} are there")
        yield data[at : at + length]
        at += length


def _uncompressed_size(block: bytes) -> int:
    """Read the varint that a block of snappy begins with."""
    size = 0
    for index, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return size
    raise ValueError("its length is damaged")


_DECOMPRESSORS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "snappy": _snappy,
    "lz4": _lz4,
    "zstd": _zstd,
}
