"""One file of events, read in micro-batches from any line."""

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
    """Identifies a file when a run resumes: resolved path, size in bytes, SHA-256 of its first 64 KiB."""

    path: str
    size: int
    head_sha256: str


class LineBatch(msgspec.Struct):
    """Consecutive lines of a file, without their line ends. `first_line`: number of lines before them."""

    lines: list[bytes]
    first_line: int


class LogFile:
    """A file of events: JSON lines (plain, gzip or zstd) or Parquet, by the file name's extension.

    `bytes_read` is the progress of the last `batches`, out of `identity.size` bytes.
    """

    def __init__(self, path: Path) -> None:
        """Record the file's identity; raises InputError if it cannot be read."""
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

        Batches can be shorter; they end at 32 MiB. A line of more than 1 MiB is represented by its first 1 MiB + 1
        bytes.

        Raises:
            InputError: the file is truncated or corrupt, has fewer than `start_line` lines, or a read fails;
                everything readable has been yielded before.
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
                f"{self.path}: {_reason(read_error)}; the {line} lines before it have been read and are kept: "
                "replace it by a complete file and run the same command again"
            ) from read_error

    def _lines(self, start_line: int) -> Iterator[list[bytes]]:
        self.bytes_read = 0
        if self.identity.size == 0:
            line_chunks: Iterator[list[bytes]] = iter(())
        elif self.path.suffix == _PARQUET:
            # Importing pyarrow takes 0.2 s, and most logs do not need it.
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
            raise CorruptLogError(f"it has {start_line - skip} lines, but {start_line} of it had been read")

    def _set_bytes_read(self, offset: int) -> None:
        self.bytes_read = offset

    def _set_fraction_read(self, fraction: float) -> None:
        self.bytes_read = int(fraction * self.identity.size)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
