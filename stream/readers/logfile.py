"""One file of events, read in micro-batches from any line."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import InputError
from prectr.stream.readers.blocks import BLOCK_BYTES, gzip_blocks, plain_blocks, zstd_blocks
from prectr.stream.readers.content import Encoding, check_content, encoding_of
from prectr.stream.readers.errors import CorruptLogError
from prectr.stream.readers.lines import split_lines

HEAD_BYTES: Final = 1 << 16
START_BYTES: Final = 128
_BATCH_BYTES: Final = 1 << 25

_BlockReader = Callable[[Path, Callable[[int], None], int, os.stat_result | None], Iterator[bytes]]
_BLOCK_READERS: Final[dict[Encoding, _BlockReader]] = {
    "plain": plain_blocks,
    "gzip": gzip_blocks,
    "zstd": zstd_blocks,
}
_LINE_FORMATS: Final = (".jsonl", ".ndjson", ".json")

EXTENSIONS: Final = (*(name + end for name in _LINE_FORMATS for end in ("", ".gz", ".zst")), ".parquet")


class FileIdentity(msgspec.Struct, frozen=True):
    """A file when it was opened: resolved path, size in bytes, SHA-256 of its first 64 KiB and 128 bytes.

    When a run resumes, a file is known by size and head, wherever it is.
    """

    path: str
    size: int
    head_sha256: str
    start_sha256: str


class LineBatch(msgspec.Struct):
    """Consecutive lines of a file, without their line ends. `first_line`: number of lines before them."""

    lines: list[bytes]
    first_line: int


class LogFile:
    """A file of events: JSON lines (plain, gzip or zstd) or Parquet, by its content.

    `bytes_read` is the progress of the last read, out of `identity.size` bytes. `has_unfinished_line`: the last read
    left out a last line without a line feed.
    """

    def __init__(self, path: Path, folders: dict[str, str] | None = None) -> None:
        """Record the file's identity; raises InputError if it cannot be read.

        Args:
            folders: resolved paths of folders, to which the file's is added: resolving takes longer than reading.
        """
        self.path = path
        self.bytes_read = 0
        self.has_unfinished_line = False
        try:
            resolved = _resolve(path, {} if folders is None else folders)
            with open(path, "rb", buffering=0) as file:
                head = file.read(HEAD_BYTES)
                self._status = os.fstat(file.fileno())
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} cannot be read: {_reason(error)}") from error
        self.encoding = encoding_of(head, path.suffix)
        head_sha256, start_sha256 = (hashlib.sha256(part).hexdigest() for part in (head, head[:START_BYTES]))
        self.identity = FileIdentity(resolved, self._status.st_size, head_sha256, start_sha256)

    def check_content(self) -> None:
        """Check, by its first bytes or its columns, that the file is not obviously something else than events.

        Raises:
            InputError: it is; the message says what it looks like, and what to do.
        """
        if not self.identity.size:
            return
        if self.encoding == "parquet":
            from prectr.stream.readers.parquet import check_columns  # noqa: PLC0415 (as in _lines)

            check_columns(self.path)
            return
        try:
            blocks = _BLOCK_READERS[self.encoding](self.path, _ignore, HEAD_BYTES, self._status)
            check_content(str(self.path), next(blocks, b""))
        except (CorruptLogError, OSError):
            # It is told with its place when the file is read.
            return

    def ignored_columns(self) -> list[str]:
        """Return the columns of a Parquet file that are not read, those of items as `items.NAME`."""
        if self.encoding != "parquet" or not self.identity.size:
            return []
        from prectr.stream.readers.parquet import ignored_columns  # noqa: PLC0415 (as in _lines)

        return ignored_columns(self.path)

    def head_sha256(self, size: int) -> str:
        """Return the SHA-256 of the file's first `size` bytes, of at most 64 KiB.

        Raises:
            InputError: the file cannot be read.
        """
        if min(size, HEAD_BYTES) == min(self.identity.size, HEAD_BYTES):
            return self.identity.head_sha256
        try:
            with self.path.open("rb") as file:
                return hashlib.sha256(file.read(min(size, HEAD_BYTES))).hexdigest()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {_reason(error)}") from error

    def batches(self, start_line: int = 0, batch_lines: int = 4096) -> Iterator[LineBatch]:
        """Yield the lines from offset `start_line` on, at most `batch_lines` at a time, in bounded memory.

        Batches can be shorter; they end at 32 MiB. A line of more than 1 MiB is represented by its first 1 MiB + 1
        bytes.

        Raises:
            InputError: as `chunks`; everything readable has been yielded before.
        """
        line = start_line
        pending: list[bytes] = []
        size = 0
        read_error: InputError | None = None
        try:
            for lines in self.chunks(start_line):
                pending += lines
                size += sum(map(len, lines))
                while len(pending) >= batch_lines or size >= _BATCH_BYTES:
                    batch, pending = pending[:batch_lines], pending[batch_lines:]
                    size = sum(map(len, pending)) if pending else 0
                    yield LineBatch(batch, line)
                    line += len(batch)
        except InputError as error:
            read_error = error
        if pending:
            yield LineBatch(pending, line)
        if read_error is not None:
            raise read_error

    def chunks(
        self, start_line: int = 0, *, block_bytes: int = BLOCK_BYTES, whole_lines: bool = False
    ) -> Iterator[list[bytes]]:
        """Yield the lines from offset `start_line` on, those of one block at a time.

        Args:
            block_bytes: size of a block of JSON lines, at most 1 MiB.
            whole_lines: leave a last line without a line feed unread, since the rest of it may not be written yet.

        Raises:
            InputError: the file is truncated, corrupt, or was changed while it was read, has fewer than `start_line`
                lines, or a read fails; everything readable has been yielded before.
        """
        line = start_line
        try:
            for lines in self._lines(start_line, block_bytes, whole_lines):
                if lines:
                    line += len(lines)
                    yield lines
        except (CorruptLogError, OSError) as error:
            raise InputError(
                f"{self.path}: {_reason(error)}; the {line} lines before it have been read and are kept: "
                "replace it by a complete file and run the same command again"
            ) from error

    def _lines(self, start_line: int, block_bytes: int, whole_lines: bool) -> Iterator[list[bytes]]:
        self.bytes_read = 0
        self.has_unfinished_line = False
        if self.identity.size == 0:
            line_chunks: Iterator[list[bytes]] = iter(())
        elif self.encoding == "parquet":
            # Importing pyarrow takes 0.2 s, and most logs do not need it.
            from prectr.stream.readers.parquet import parquet_rows  # noqa: PLC0415

            line_chunks = parquet_rows(self.path, self._set_fraction_read, self._status)
        else:
            blocks = _BLOCK_READERS[self.encoding](self.path, self._set_bytes_read, block_bytes, self._status)
            line_chunks = split_lines(blocks, self._set_unfinished_line if whole_lines else None)
        skip = start_line
        for lines in line_chunks:
            yield lines[skip:] if skip else lines
            skip = max(0, skip - len(lines))
        if skip:
            raise CorruptLogError(f"it has {start_line - skip} lines, but {start_line} of it had been read")

    def _set_unfinished_line(self) -> None:
        self.has_unfinished_line = True

    def _set_bytes_read(self, offset: int) -> None:
        self.bytes_read = offset

    def _set_fraction_read(self, fraction: float) -> None:
        self.bytes_read = int(fraction * self.identity.size)


def _resolve(path: Path, folders: dict[str, str]) -> str:
    name = os.fspath(path)
    if os.path.islink(name):
        return str(path.resolve(strict=True))
    folder = os.path.dirname(name)
    if folder not in folders:
        folders[folder] = str(path.parent.resolve(strict=True))
    return os.path.join(folders[folder], path.name)


def _ignore(_read: int) -> None:
    """Report no progress."""


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
