"""The bytes of a log file, decompressed, in blocks of bounded size."""

import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import zstandard

from prectr.stream.readers.errors import CorruptLogError
from prectr.stream.readers.raw_file import RawFile

BLOCK_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 12
"""Compressed bytes decoded at a time; small, because zstd can expand one byte to 32 KiB: at most 128 MiB here."""

_BUFFER_BYTES: Final = 1 << 16
"""Compressed bytes of a file in memory."""

_GZIP_WINDOW: Final = 31
_DECODE_ERRORS: Final = (zlib.error, zstandard.ZstdError)


class _Decoder(Protocol):
    """One gzip member or zstd frame being decoded."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member or frame has been reached."""

    @property
    def unused_data(self) -> bytes:
        """The bytes after that end."""

    def decompress(self, data: bytes, /) -> bytes:
        """Decode the next compressed bytes."""


def _gzip_member() -> _Decoder:
    return zlib.decompressobj(_GZIP_WINDOW)


def _zstd_frame() -> _Decoder:
    return zstandard.ZstdDecompressor().decompressobj()


def plain_blocks(
    path: Path,
    on_progress: Callable[[int], None],
    block_bytes: int = BLOCK_BYTES,
    expected: os.stat_result | None = None,
) -> Iterator[bytes]:
    """Yield a file's bytes in blocks of at most `block_bytes`; `on_progress` receives the number of bytes read.

    Raises:
        CorruptLogError: the file is no longer the `expected` one, or was changed other than by growing.
    """
    with closing(RawFile(path, expected)) as file:
        while block := file.read(block_bytes):
            on_progress(file.tell())
            yield block
        file.check_unchanged()


def gzip_blocks(
    path: Path,
    on_progress: Callable[[int], None],
    block_bytes: int = BLOCK_BYTES,
    expected: os.stat_result | None = None,
) -> Iterator[bytes]:
    """Yield the content of a gzip file (one or more members) in blocks of at most `block_bytes`.

    Everything before corrupt data is yielded before CorruptLogError is raised.
    """
    return _rechunk(_decompress(path, on_progress, _gzip_member, "gzip", expected), block_bytes)


def zstd_blocks(
    path: Path,
    on_progress: Callable[[int], None],
    block_bytes: int = BLOCK_BYTES,
    expected: os.stat_result | None = None,
) -> Iterator[bytes]:
    """Yield the content of a zstd file (one or more frames) in blocks of at most `block_bytes`.

    Everything before corrupt data is yielded before CorruptLogError is raised; so is a frame with a window of more
    than 128 MiB, which would be held in memory.
    """
    return _rechunk(_decompress(path, on_progress, _zstd_frame, "zstd", expected), block_bytes)


def _rechunk(chunks: Iterator[bytes], block_bytes: int) -> Iterator[bytes]:
    """Join small chunks and split large ones; CorruptLogError comes after everything readable."""
    buffered: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            buffered.append(chunk)
            size += len(chunk)
            if size >= block_bytes:
                joined = b"".join(buffered)
                buffered, size = [], 0
                for start in range(0, len(joined), block_bytes):
                    yield joined[start : start + block_bytes]
    except CorruptLogError:
        if buffered:
            yield b"".join(buffered)
        raise
    if buffered:
        yield b"".join(buffered)


def _decompress(
    path: Path,
    on_progress: Callable[[int], None],
    new_decoder: Callable[[], _Decoder],
    format_name: str,
    expected: os.stat_result | None,
) -> Iterator[bytes]:
    raw = RawFile(path, expected)
    with closing(io.BufferedReader(raw, _BUFFER_BYTES)) as file:
        data = file.read(_READ_BYTES)
        while data:
            member_at = file.tell() - len(data)
            decoder = new_decoder()
            while not decoder.eof:
                if not data:
                    raise CorruptLogError(f"the {format_name} data is cut off at byte {file.tell()}")
                try:
                    chunk = decoder.decompress(data)
                except _DECODE_ERRORS as error:
                    yield from _salvage(file, member_at, file.tell() - len(data), new_decoder())
                    raise CorruptLogError(_corruption_message(format_name, member_at, file.tell(), error)) from error
                on_progress(file.tell())
                yield chunk
                data = decoder.unused_data if decoder.eof else file.read(_READ_BYTES)
            data = _next_member(file, data, padded=format_name == "gzip")
        raw.check_unchanged()


def _next_member(file: BinaryIO, data: bytes, padded: bool) -> bytes:
    """Return the first bytes after a member; zero bytes after gzip data are padding (as gzip tools treat them)."""
    data = data.lstrip(b"\0") if padded else data
    while not data and (more := file.read(_READ_BYTES)):
        data = more.lstrip(b"\0") if padded else more
    return data


def _salvage(file: BinaryIO, member_at: int, corrupt_at: int, decoder: _Decoder) -> Iterator[bytes]:
    """Decode the corrupt part of a member again, byte by byte, up to the corruption."""
    file.seek(member_at)
    while (remaining := corrupt_at - file.tell()) > 0:
        decoder.decompress(file.read(min(remaining, _READ_BYTES)))
    for byte in file.read(_READ_BYTES):
        try:
            yield decoder.decompress(bytes((byte,)))
        except _DECODE_ERRORS:
            return


def _corruption_message(format_name: str, member_at: int, offset: int, error: Exception) -> str:
    if "too much memory" in str(error):
        return (
            "it was compressed with a window of more than 128 MiB (zstd --long): compress it again without that, as by "
            "zstd -dc --long=31 FILE | zstd -o NEW_FILE"
        )
    if member_at == 0 and offset <= 2:
        return f"it is not {format_name} data"
    return f"the {format_name} data is corrupt near byte {offset} ({error})"
