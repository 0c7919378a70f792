"""Rows of foreign files as dicts: CSV, JSON lines, JSON arrays and Parquet, plain or compressed, in bounded memory."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import ijson
import msgspec
import pyarrow
import pyarrow.parquet

from prectr.state.errors import InputError, UsageError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.readers.blocks import gzip_blocks, plain_blocks, zstd_blocks
from prectr.stream.readers.errors import CorruptLogError
from prectr.stream.readers.lines import split_lines

Format = Literal["csv", "jsonl", "json", "parquet"]
_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_COMPRESSIONS: Final = {".gz": gzip_blocks, ".gzip": gzip_blocks, ".zst": zstd_blocks}
_DELIMITERS: Final = ",;\t|"
_MAX_CELL: Final = 1 << 24
_PARQUET_BATCH_ROWS: Final = 64
"""Rows of a Parquet file in memory at a time: one dictionary entry of a few MiB may stand in each of them."""
_MAX_BATCH_BYTES: Final = 1 << 30
_SAMPLE_BYTES: Final = 1 << 16


OnBytes = Callable[[int], None]


def _ignore(_read: int) -> None:
    """Report no progress."""


class Row(NamedTuple):
    """A row and its place for messages, such as `file.csv row 12`; `value` is Unmappable where it cannot be read."""

    place: str
    value: dict[str, Any] | Unmappable


def detect_format(path: Path) -> Format:
    """Return the format of a file by its name, and of .json by its first character: an array, or lines.

    Raises UsageError for a name that says nothing.
    """
    suffix = _uncompressed_suffix(path)
    found = _SUFFIXES.get(suffix)
    if found is None:
        known = ", ".join(_SUFFIXES)
        raise UsageError(
            f"{path}: cannot tell its format from its name; it ends in one of {known}, or set input.format"
        )
    if found in ("json", "jsonl"):
        return "json" if _first_character(path) == b"[" else "jsonl"
    return found


def read_rows(
    path: Path,
    file_format: Format | None = None,
    delimiter: str | None = None,
    on_bytes: OnBytes = _ignore,
) -> Iterator[Row]:
    """Yield the rows of a file in their order.

    Args:
        path: the file; .gz and .zst are decompressed.
        file_format: of the file; by default by `detect_format`.
        on_bytes: called with the bytes of the file that have been read so far.
        delimiter: of a CSV file; by default the one of comma, semicolon, tab and bar that the header has most of.

    Raises:
        InputError: the file cannot be read, is corrupt, or has no header.
        UsageError: its name says nothing of its format.
    """
    try:
        chosen = file_format or detect_format(path)
        if chosen == "csv":
            yield from _read_csv(path, delimiter, on_bytes)
        elif chosen == "parquet":
            yield from _read_parquet(path, on_bytes)
        elif chosen == "json":
            yield from _read_array(path, on_bytes)
        else:
            yield from _read_lines(path, on_bytes)
    except CorruptLogError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _uncompressed_suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() in _COMPRESSIONS else path.suffix.lower()


def _blocks(path: Path, on_bytes: OnBytes) -> Iterator[bytes]:
    return _COMPRESSIONS.get(path.suffix.lower(), plain_blocks)(path, on_bytes)


def _first_character(path: Path) -> bytes:
    head = next(_blocks(path, _ignore), b"")[:_SAMPLE_BYTES]
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


class _BlockStream(io.RawIOBase):
    """Blocks of bytes as a raw stream."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _read_csv(path: Path, delimiter: str | None, on_bytes: OnBytes) -> Iterator[Row]:
    csv.field_size_limit(_MAX_CELL)
    raw = io.BufferedReader(_BlockStream(_blocks(path, on_bytes)), 1 << 20)
    head = raw.peek(_SAMPLE_BYTES)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape", newline="")
    first_line = head.decode(encoding, errors="replace").partition("\n")[0]
    separator = delimiter or max(_DELIMITERS, key=first_line.count)
    reader = csv.reader(text, delimiter=separator)
    try:
        header = next(reader, None)
        if not header:
            raise InputError(f"{path} has no header row")
        duplicates = {name for name in header if header.count(name) > 1}
        if duplicates:
            raise InputError(f"{path}: two columns are named {sorted(duplicates)[0]!r}; rename one")
        for number, cells in enumerate(reader, 2):
            place = f"{path} row {number}"
            if not cells:
                continue
            if len(cells) != len(header):
                detail = f"{len(cells)} cells where the header has {len(header)}: is the delimiter {separator!r} right?"
                yield Row(place, Unmappable("wrong_number_of_cells", detail))
            elif any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
                yield Row(place, Unmappable("not_utf8", "a cell is not UTF-8"))
            else:
                yield Row(place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: {error}") from error


def _read_lines(path: Path, on_bytes: OnBytes) -> Iterator[Row]:
    number = 0
    for lines in split_lines(_blocks(path, on_bytes)):
        for line in lines:
            number += 1
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                continue
            yield _json_row(f"{path} line {number}", content)


def _json_row(place: str, content: bytes) -> Row:
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Row(place, Unmappable("not_json", f"{error}: {content[:60]!r}"))
    if not isinstance(value, dict):
        return Row(place, Unmappable("not_an_object", f"{content[:60]!r}"))
    return Row(place, value)


def _read_array(path: Path, on_bytes: OnBytes) -> Iterator[Row]:
    stream = io.BufferedReader(_BlockStream(_blocks(path, on_bytes)), 1 << 16)
    number = 0
    try:
        for value in ijson.items(stream, "item", use_float=True):
            number += 1
            place = f"{path} element {number}"
            if isinstance(value, dict):
                yield Row(place, value)
            else:
                yield Row(place, Unmappable("not_an_object", f"{value!r}"[:60]))
    except ijson.JSONError as error:
        raise InputError(f"{path}: not JSON after element {number}: {error}") from error


def _read_parquet(path: Path, on_bytes: OnBytes) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            duplicates = {name for name in names if names.count(name) > 1}
            if duplicates:
                raise InputError(f"{path}: two columns are named {sorted(duplicates)[0]!r}; rename one")
            number, size = 0, path.stat().st_size
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                if batch.nbytes > _MAX_BATCH_BYTES:
                    raise InputError(f"{path} row {number + 1}: {batch.nbytes:,} bytes in {batch.num_rows} rows")
                on_bytes(size * (number + batch.num_rows) // file.metadata.num_rows)
                for index in range(batch.num_rows):
                    number += 1
                    yield _parquet_row(f"{path} row {number}", batch, index)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {error}") from error


def _parquet_row(place: str, batch: Any, index: int) -> Row:
    try:
        return Row(place, {name: batch.column(name)[index].as_py() for name in batch.schema.names})
    except (ValueError, OverflowError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        return Row(place, Unmappable("unreadable_value", str(error)))
