"""The examples file: one page per line or row in the total order, for other programs."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import zstandard

from prectr.state.errors import PrectrError, Remedy
from prectr.state.private_files import open_private_file
from prectr.stream.records import Example
from prectr.stream.sinks.example_line import Scores, example_line
from prectr.stream.sinks.written_examples import read_examples

_encode = msgspec.json.Encoder().encode
_BUFFER: Final = 1 << 20


def _gzip_member(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def _zstd_frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def _plain(data: bytes) -> bytes:
    return data


_COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {".gz": _gzip_member, ".zst": _zstd_frame}


class ExampleFile:
    """Writes the file, in the format that its suffix names (`prectr.stream.output_format`).

    A resumed run truncates it to the length that `flush` returned at its checkpoint. In a compressed file each flush
    ends a gzip member or zstd frame, so that the part before it is a complete file. A Parquet file cannot be truncated:
    its lines are collected in a spool, a file of lines, from which `finish` makes it.
    """

    def __init__(self, path: Path, spool: Path, length: int = 0) -> None:
        """Open the file of lines, truncated to `length` bytes: `path`, or `spool` if `path` is to be Parquet.

        Raises:
            PrectrError: it cannot be written, or is shorter than `length`.
        """
        self._path = path
        self._lines_path = spool if path.suffix == ".parquet" else path
        self._compress = _COMPRESSIONS.get(self._lines_path.suffix, _plain)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self._open_lines(spool)
            size = self._file.seek(0, 2)
            if size < length:
                self._file.close()
                raise PrectrError(
                    f"{self._lines_path}: has {size} bytes, but the run had written {length}: put the original file "
                    "back,",
                    Remedy.RESTART,
                )
            self._file.truncate(length)
            self._file.seek(length)
        except OSError as error:
            raise self._write_error(error) from error
        self._lines: list[bytes] = []
        self._size = 0

    def _open_lines(self, spool: Path) -> BinaryIO:
        if self._lines_path == spool:
            # In the run folder: nobody else's link is followed there. Where the user wants the file, one may be.
            return os.fdopen(open_private_file(spool), "r+b")
        return self._lines_path.open("r+b" if self._lines_path.exists() else "w+b")

    def write(self, example: Example, scores: Scores) -> None:
        """Append the line of an example, with the scores that there are."""
        line = _encode(example_line(example, scores))
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BUFFER:
            self.flush()

    def flush(self) -> int:
        """Write what is buffered; return the length of the file of lines."""
        try:
            if self._lines:
                self._file.write(self._compress(b"\n".join(self._lines) + b"\n"))
                self._lines.clear()
                self._size = 0
            self._file.flush()
        except OSError as error:
            raise self._write_error(error) from error
        return self._file.tell()

    def finish(self) -> None:
        """Make the file complete for its readers as it is now; more can follow."""
        self.flush()
        if self._lines_path == self._path:
            return
        from prectr.stream.sinks.example_table import write_parquet  # noqa: PLC0415 (pyarrow takes time to import)

        try:
            write_parquet(self._path, read_examples(self._lines_path))
        except OSError as error:
            raise self._write_error(error) from error

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self.flush()
        self._file.close()

    def _write_error(self, error: OSError) -> PrectrError:
        return PrectrError(f"{self._path}: the examples cannot be written: {error.strerror or error}")
