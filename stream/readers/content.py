"""What a file holds, by its first bytes: its compression, or why no line of it can be an event."""

import re
from typing import Final, Literal

import msgspec

from prectr.state.errors import InputError, Remedy

Encoding = Literal["plain", "gzip", "zstd", "parquet"]
BY_SUFFIX: Final[dict[str, Encoding]] = {".gz": "gzip", ".zst": "zstd", ".parquet": "parquet"}

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_PARQUET_MAGIC: Final = b"PAR1"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_OTHER_FORMATS: Final = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed with snappy"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3", "an SQLite database"),
)
_ARRAY_START: Final = re.compile(rb"\[\s*(\{|$)")
_SAMPLE_LINES: Final = 20
_DELIMITERS: Final = (",", ";", "\t", "|")


def encoding_of(head: bytes, suffix: str) -> Encoding:
    """Return how a file is encoded: by its content, since names are often wrong, else by the end of its name."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    if head.startswith(_ZSTD_MAGIC) or _ZSTD_SKIPPABLE.match(head):
        return "zstd"
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    if head.removeprefix(_UTF8_MARK).lstrip()[:1] in (b"{", b"["):
        return "plain"
    return BY_SUFFIX.get(suffix, "plain")


def check_content(path: str, head: bytes) -> None:
    """Check that a file can hold one JSON event a line, as far as its first bytes, decompressed, show.

    Raises:
        InputError: none of its first lines is a JSON object, and it has the form of something else, which is named with
            what to do about it.
    """
    for magic, name in _OTHER_FORMATS:
        if head.startswith(magic):
            raise InputError(f"{path} is {name}, and not a file of JSON lines: decompress or export it first")
    if head.startswith(_UTF16_MARKS) or head[:2] in (b"{\0", b"\0{"):
        raise InputError(f"{path} is UTF-16: write it as UTF-8, as by iconv -f UTF-16 -t UTF-8")
    lines = [line for line in head.removeprefix(_UTF8_MARK).split(b"\n") if line.strip()][:_SAMPLE_LINES]
    if not lines:
        return
    first = lines[0]
    first_is_json = _is_json(first)
    objects = sum(map(_is_object, lines))
    if _is_array(first, first_is_json, objects, len(lines)):
        raise InputError(
            f"{path} is a JSON array, and not one JSON event per line: if its elements are events, write one a line, "
            "as by jq -c '.[]',",
            Remedy.CONVERT,
        )
    if objects or first.startswith(b"["):
        return
    if first.startswith(b"{") and not first_is_json and len(lines) > 1 and not lines[1].lstrip().startswith(b"{"):
        raise InputError(
            f"{path} is JSON over several lines (pretty-printed), and not one JSON event per line: write each event on "
            "one line, as by jq -c ."
        )
    delimiter = _delimiter(lines)
    if delimiter is not None:
        raise InputError(
            f"{path} is CSV or the like (cells between {delimiter!r}), and not one JSON event per line",
            Remedy.CONVERT,
        )


def _is_array(first: bytes, first_is_json: bool, objects: int, lines: int) -> bool:
    """Return whether the first line opens an array of events, and is not just a bad line before events.

    Of an array with an element on each line, only the last is a JSON object; the others end with a comma.
    """
    if objects == 0 and first_is_json:
        return first.startswith(b"[")
    return bool(_ARRAY_START.match(first)) and 2 * objects < lines


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_object(line: bytes) -> bool:
    """Return whether a line is a JSON object of its own: those within pretty-printed JSON are indented."""
    return line.startswith(b"{") and _is_json(line)


def _delimiter(lines: list[bytes]) -> str | None:
    """Return what separates the cells of a table: as often in the first line as in the second, if there is one."""
    first, *rest = (line.decode(errors="replace") for line in lines[:2])
    if first.lstrip().startswith("{"):
        return None
    counts = {each: first.count(each) for each in _DELIMITERS if first.count(each)}
    return next(
        (each for each in sorted(counts, key=counts.__getitem__, reverse=True) if all(each in line for line in rest)),
        None,
    )
