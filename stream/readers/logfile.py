"""One file of events, read in micro-batches from any line on."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import InputError
from prectr.stream.readers.blocks import gzip_blocks, plain_blocks, zstd_blocks
from prectr.stream.readers.errors import CorruptLogError
from prectr.stream.readers.lines import split_lines

_HEAD_BYTES: Final = 1 << 16
_BATCH_BYTES: Final = 1 << 25

_BlockReader = Callable[[Path, Callable[[int], None]], Iterator[bytes]]
_COMPRESSIONS: Final[dict[str, _BlockReader]] = {"": plain_blocks, ".gz": gzip_blocks, ".zst": zstd_blocks}
_LINE_FORMATS: Final = (".jsonl", ".ndjson", ".json")
_PARQUET: Final = ".parquet"

EXTENSIONS: Final = (*(name + end for name in _LINE_FORMATS for end in _COMPRESSIONS), _PARQUET)


class FileIdentity(msgspec.Struct, frozen=True):
    """What a file must still be for a run to go on in it: resolved path, size in bytes, SHA-256 of its first 64 KiB."""

    path: str
    size: int
    head_sha256: str


class LineBatch(msgspec.Struct):
    """Lines that follow one another in a file, without their line ends.

    first_line: the number of lines in front of them; the line that editors call 1 has offset 0.
    """

    lines: list[bytes]
    first_line: int


class LogFile:
    """A file of events: JSON lines (plain, gzip or zstd) or Parquet, told apart by the name's ending.

    `bytes_read` says how far the last `batches` has come in the file, of `identity.size` bytes.
    """

    def __init__(self, path: Path) -> None:
        """Take note of what the file is; raises InputError if it cannot be read."""
        self.path = path
        self.bytes_read = 0
        try:
            resolved = path.resolve(strict=True)
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            size = path.stat().st_size
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} cannot be read: {_reason(error)}") from error
        self.identity = FileIdentity(str(resolved), size, hashlib.sha256(head).hexdigest())

    def batches(self, start_line: int = 0, batch_lines: int = 4096) -> Iterator[LineBatch]:
        """Yield the lines from offset `start_line` on, at most `batch_lines` at a time, in bounded memory.

        Batches can be shorter than that; they end at 32 MiB. A line of more than 1 MiB is represented by
        its first 1 MiB + 1 bytes. Everything that is readable is yielded before InputError is raised: for
        a cut-off or damaged file, for a read error, and for a file of fewer than `start_line` lines.
        """
        line = start_line
        pending: list[bytes] = []
        size = 0
        read_error: Exception | None = None
        try:
            for lines in self._lines(start_line):
                pending += lines
                size += sum(map(len, lines))
                while len(pending) >= batch_lines or size >= _BATCH_BYTES:
                    batch, pending = pending[:batch_lines], pending[batch_lines:]
                    size = sum(map(len, pending)) if pending else 0
                    yield LineBatch(batch, line)
                    line += len(batch)
        except (CorruptLogError, OSError) as error:
            read_error = error
        if pending:
            yield LineBatch(pending, line)
            line += len(pending)
        if read_error is not None:
            raise InputError(
                f"{self.path}: {_reason(read_error)}; the {line} lines in front of it are read and kept. "
                "Put a whole file in its place and start again"
            ) from read_error

    def _lines(self, start_line: int) -> Iterator[list[bytes]]:
        self.bytes_read = 0
        if self.identity.size == 0:
            line_chunks: Iterator[list[bytes]] = iter(())
        elif self.path.suffix == _PARQUET:
            # pyarrow takes 0.2 s to import, and most logs need none of it.
            from prectr.stream.readers.parquet import parquet_rows  # noqa: PLC0415

            line_chunks = parquet_rows(self.path, self._set_fraction_read)
        else:
            blocks = _COMPRESSIONS[self.path.suffix if self.path.suffix in _COMPRESSIONS else ""]
            line_chunks = split_lines(blocks(self.path, self._set_bytes_read))
        skip = start_line
        for lines in line_chunks:
            yield lines[skip:] if skip else lines
            skip = max(0, skip - len(lines))
        if skip:
            raise CorruptLogError(f"it has {start_line - skip} lines, and {start_line} had been read of it")

    def _set_bytes_read(self, offset: int) -> None:
        self.bytes_read = offset

    def _set_fraction_read(self, fraction: float) -> None:
        self.bytes_read = int(fraction * self.identity.size)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
