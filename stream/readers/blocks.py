"""The bytes of a log file, decompressed, in blocks of bounded size."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import zstandard

from prectr.stream.readers.errors import DamageError

BLOCK_BYTES: Final = 1 << 20
_FEED_BYTES: Final = 1 << 12
"""Compressed bytes decoded at a time. Small, because zstd can make 32 KiB of one byte: at most 128 MiB here."""

_GZIP_WINDOW: Final = 31
_DECODE_ERRORS: Final = (zlib.error, zstandard.ZstdError)


class _Decoder(Protocol):
    """One gzip member or zstd frame being decoded."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member or frame has been reached."""

    @property
    def unused_data(self) -> bytes:
        """What came after that end."""

    def decompress(self, data: bytes, /) -> bytes:
        """Decode the next compressed bytes."""


def _gzip_member() -> _Decoder:
    return zlib.decompressobj(_GZIP_WINDOW)


def _zstd_frame() -> _Decoder:
    return zstandard.ZstdDecompressor().decompressobj()


def plain_blocks(path: Path, read_to: Callable[[int], None]) -> Iterator[bytes]:
    """Yield a file's bytes in blocks of at most 1 MiB; `read_to` is told the place in the file."""
    place = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            place += len(block)
            read_to(place)
            yield block


def gzip_blocks(path: Path, read_to: Callable[[int], None]) -> Iterator[bytes]:
    """Yield what a gzip file holds (one or more members) in blocks of at most 1 MiB.

    Everything in front of damage is yielded before DamageError is raised.
    """
    return _blocks(_decompressed(path, read_to, _gzip_member, "gzip"))


def zstd_blocks(path: Path, read_to: Callable[[int], None]) -> Iterator[bytes]:
    """Yield what a zstd file holds (one or more frames) in blocks of at most 1 MiB.

    Everything in front of damage is yielded before DamageError is raised.
    """
    return _blocks(_decompressed(path, read_to, _zstd_frame, "zstd"))


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Gather small pieces and cut large ones; damage comes after what could be read."""
    gathered: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            gathered.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES:
                whole = b"".join(gathered)
                gathered, size = [], 0
                for start in range(0, len(whole), BLOCK_BYTES):
                    yield whole[start : start + BLOCK_BYTES]
    except DamageError:
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


def _decompressed(
    path: Path, read_to: Callable[[int], None], start: Callable[[], _Decoder], name: str
) -> Iterator[bytes]:
    with path.open("rb", buffering=BLOCK_BYTES) as file:
        data = file.read(_FEED_BYTES)
        while data:
            member_at = file.tell() - len(data)
            decoder = start()
            while not decoder.eof:
                if not data:
                    raise DamageError(f"the {name} data is cut off at byte {file.tell()}")
                try:
                    piece = decoder.decompress(data)
                except _DECODE_ERRORS as error:
                    yield from _readable(file, member_at, file.tell() - len(data), start())
                    raise DamageError(_damage(name, member_at, file.tell(), error)) from error
                read_to(file.tell())
                yield piece
                data = decoder.unused_data if decoder.eof else file.read(_FEED_BYTES)
            data = _next_member(file, data, padded=name == "gzip")


def _next_member(file: BinaryIO, data: bytes, padded: bool) -> bytes:
    """Return the start of what follows a member; zero bytes after gzip data are padding (RFC 1952 tools)."""
    data = data.lstrip(b"\0") if padded else data
    while not data and (more := file.read(_FEED_BYTES)):
        data = more.lstrip(b"\0") if padded else more
    return data


def _readable(file: BinaryIO, member_at: int, damaged_at: int, decoder: _Decoder) -> Iterator[bytes]:
    """Decode the damaged piece of a member again, byte by byte, for all that comes before the damage."""
    file.seek(member_at)
    while (left := damaged_at - file.tell()) > 0:
        decoder.decompress(file.read(min(left, _FEED_BYTES)))
    for byte in file.read(_FEED_BYTES):
        try:
            yield decoder.decompress(bytes((byte,)))
        except _DECODE_ERRORS:
            return


def _damage(name: str, member_at: int, place: int, error: Exception) -> str:
    if member_at == 0 and place <= 2:
        return f"it is not {name} data"
    return f"the {name} data is damaged near byte {place} ({error})"
