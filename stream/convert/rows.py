"""Rows of foreign files as dicts: CSV, JSON lines, JSON arrays and Parquet, plain or compressed, in bounded memory."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import ijson
import msgspec

from prectr.state.errors import InputError, UsageError
from prectr.stream.convert.outcome import Unmappable
from prectr.stream.convert.parquet_rows import read_parquet
from prectr.stream.convert.values import shown, to_plain
from prectr.stream.events.contract import MAX_EVENT_BYTES
from prectr.stream.events.nesting import MAX_DEPTH, is_too_deep
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
_COMPRESSED_SUFFIXES: Final = (".gz", ".gzip", ".zst")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS: Final = ",;\t|"
_MAX_ROW_BYTES: Final = 1 << 24
"""Of a CSV row or an element of a JSON array; as Python objects it can take some fifty times that."""
_SAMPLE_BYTES: Final = 1 << 16
_SPAN_OF_AN_OPEN_QUOTE: Final = 100

OnBytes = Callable[[int], None]


def _ignore(_read: int) -> None:
    """Report no progress."""


class Row(NamedTuple):
    """A row. place: for messages, such as `file.csv row 12`; value: Unmappable where the row cannot be read."""

    place: str
    value: dict[str, Any] | Unmappable


def detect_format(path: Path, default: Format | None = None) -> Format:
    """Return the format of a file by the end of its name; of JSON by the first character: an array, or lines.

    Raises UsageError for an unknown end where there is no default.
    """
    found = _SUFFIXES.get(_uncompressed_suffix(path), default)
    if found is None:
        raise UsageError(
            f"{path}: its name must end in one of {', '.join(_SUFFIXES)} (also with .gz or .zst),"
            " or the mapping must set input.format"
        )
    if found in ("json", "jsonl"):
        return "json" if _first_character(path) == b"[" else "jsonl"
    return found


def read_rows(
    path: Path,
    file_format: Format | None = None,
    delimiter: str | None = None,
    on_bytes: OnBytes = _ignore,
    default_format: Format | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file in their order.

    Args:
        path: the file; gzip and zstd are recognised by content and decompressed.
        file_format: of the file; by default by `detect_format`.
        delimiter: of a CSV file; by default the most frequent in the header of comma, semicolon, tab and bar.
        on_bytes: called with the bytes of the file that have been read so far.
        default_format: of files whose names do not show it.

    Raises:
        InputError: the file cannot be read, is corrupt, has no header, or has a row of more than 16 MiB.
        UsageError: its format is unknown.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the files in it")
    try:
        chosen = file_format or detect_format(path, default_format)
        if chosen == "csv":
            yield from _read_csv(path, delimiter, on_bytes)
        elif chosen == "parquet":
            for place, value in read_parquet(path, on_bytes):
                yield Row(place, value)
        elif chosen == "json":
            yield from _read_array(path, on_bytes)
        else:
            yield from _read_lines(path, on_bytes)
    except CorruptLogError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _uncompressed_suffix(path: Path) -> str:
    is_compressed = path.suffix.lower() in _COMPRESSED_SUFFIXES
    return (Path(path.stem) if is_compressed else path).suffix.lower()


def _blocks(path: Path, on_bytes: OnBytes) -> Iterator[bytes]:
    """Yield the decompressed bytes. Compression is recognised by content, since names are often wrong."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(_GZIP_MAGIC):
        return gzip_blocks(path, on_bytes)
    if magic == _ZSTD_MAGIC or magic[1:] == _ZSTD_SKIPPABLE:
        return zstd_blocks(path, on_bytes)
    return plain_blocks(path, on_bytes)


def _first_character(path: Path) -> bytes:
    head = next(_blocks(path, _ignore), b"")[:_SAMPLE_BYTES]
    return head.removeprefix(_UTF8_MARK).lstrip()[:1]


class _RowStream(io.RawIOBase):
    """Blocks of bytes as a raw stream. It ends with an error once a row has become too large for memory.

    row_bytes: bytes that have been read since the reader of rows last set it to 0.
    """

    def __init__(self, path: Path, blocks: Iterator[bytes]) -> None:
        self._path = path
        self._blocks = blocks
        self._rest = memoryview(b"")
        self.row_bytes = 0

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
        self.row_bytes += size
        if self.row_bytes > _MAX_ROW_BYTES:
            raise InputError(f"{self._path}: a row of more than {_MAX_ROW_BYTES >> 20} MiB")
        return size


def _read_csv(path: Path, delimiter: str | None, on_bytes: OnBytes) -> Iterator[Row]:
    stream = _RowStream(path, _blocks(path, on_bytes))
    raw = io.BufferedReader(stream, _SAMPLE_BYTES)
    head = raw.peek(_SAMPLE_BYTES)
    encoding = "utf-16" if head.startswith(_UTF16_MARKS) else "utf-8-sig"
    first_line = head.decode(encoding, errors="replace").partition("\n")[0]
    separator = delimiter or max(_DELIMITERS, key=first_line.count)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    text = io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="")
    csv.field_size_limit(_MAX_ROW_BYTES)
    reader = csv.reader(text, delimiter=separator)
    try:
        header = _header(path, next(reader, None))
        line = reader.line_num
        for number, cells in enumerate(reader, 2):
            if cells:
                yield _csv_row(f"{path} row {number}", header, cells, separator, reader.line_num - line)
            line = reader.line_num
            stream.row_bytes = 0
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: {error}") from error


def _header(path: Path, cells: list[str] | None) -> list[str]:
    if not cells:
        raise InputError(f"{path} has no header row")
    if not _is_text("".join(cells)):
        raise InputError(f"{path}: its header is not UTF-8; write the file as UTF-8")
    header = [cell.strip() for cell in cells]
    duplicates = sorted(name for name in set(header) if name and header.count(name) > 1)
    if duplicates:
        raise InputError(f"{path}: two columns are named {duplicates[0]!r}; rename one")
    return header


def _csv_row(place: str, header: list[str], cells: list[str], separator: str, lines: int) -> Row:
    if len(cells) != len(header):
        detail = f"{len(cells)} cells, and {len(header)} in the header, between {separator!r}"
        if lines > _SPAN_OF_AN_OPEN_QUOTE:
            detail += f"; the row has {lines:,} lines: is a quote not closed?"
        return Row(place, Unmappable("wrong_number_of_cells", detail))
    if not _is_text("".join(cells)):
        return Row(place, Unmappable("not_utf8", "a cell is not UTF-8"))
    return Row(place, dict(zip(header, cells, strict=True)))


def _is_text(text: str) -> bool:
    """Return whether a text was decoded without escapes for bytes that are not UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_lines(path: Path, on_bytes: OnBytes) -> Iterator[Row]:
    number = 0
    for lines in split_lines(_blocks(path, on_bytes)):
        for line in lines:
            number += 1
            if number == 1 and line.startswith(_UTF16_MARKS):
                raise InputError(f"{path} is UTF-16; write it as UTF-8")
            if line.strip():
                yield _json_row(f"{path} line {number}", line)


def _json_row(place: str, content: bytes) -> Row:
    try:
        return Row(place, decode_object(content))
    except Unmappable as error:
        return Row(place, error)


def decode_object(content: bytes) -> dict[str, Any]:
    """Return the row of a JSON object.

    Raises Unmappable `too_large`, `too_deep`, `not_json` or `not_an_object`.
    """
    if len(content) > MAX_EVENT_BYTES:
        raise Unmappable("too_large", f"{len(content):,} bytes of JSON, of at most {MAX_EVENT_BYTES:,}")
    if is_too_deep(content):
        raise Unmappable("too_deep", f"more than {MAX_DEPTH} arrays and objects nested")
    try:
        value = _decode_json(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unmappable("not_json", f"{error}: {content[:60]!r}") from error
    if not isinstance(value, dict):
        raise Unmappable("not_an_object", f"{content[:60]!r}")
    return value


def _decode_json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.MsgspecError:
        # Python and pandas write NaN, which is no JSON, for missing numbers.
        if b"NaN" not in content and b"Infinity" not in content:
            raise
    return json.loads(content)


def _read_array(path: Path, on_bytes: OnBytes) -> Iterator[Row]:
    stream = _RowStream(path, _blocks(path, on_bytes))
    buffered = io.BufferedReader(stream, _SAMPLE_BYTES)
    if buffered.peek(3).startswith(_UTF8_MARK):
        buffered.read(3)
    number = 0
    try:
        for value in ijson.items(buffered, "item"):
            number += 1
            stream.row_bytes = 0
            yield _element_row(f"{path} element {number}", value)
    except ijson.JSONError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not JSON after element {number}: {reason}") from error


def _element_row(place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(place, Unmappable("not_an_object", shown(value)))
    try:
        return Row(place, to_plain(value))
    except RecursionError:
        return Row(place, Unmappable("too_deep", "arrays or objects nested too deeply"))
