"""The examples file: one page per line in the total order, as JSON for other programs."""

import gzip
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from prectr.state.aggregates import LEVELS, LevelCounts
from prectr.state.errors import InputError, PrectrError, Remedy
from prectr.stream.records import Example, decode_page

_encode = msgspec.json.Encoder().encode
_BUFFER: Final = 1 << 20


class ExampleItem(msgspec.Struct):
    """One item of a page: `click` is 0 or 1, `relevance` its level, 1 to 4."""

    item_id: str
    click: int
    relevance: int


class ExampleLine(msgspec.Struct):
    """A line of the file. The stats map level to [impressions, clicks], totals as of the page's ts."""

    request_id: str
    user_id: str
    query: str
    ts: int
    items: list[ExampleItem]
    query_stats: dict[str, tuple[int, int]]
    user_stats: dict[str, tuple[int, int]]
    user_activity: int


_decode = msgspec.json.Decoder(ExampleLine).decode


def example_line(example: Example) -> ExampleLine:
    """Return the line of an example."""
    items = decode_page(example.page).items
    return ExampleLine(
        example.request_id,
        example.user_id,
        example.query,
        example.ts,
        [
            ExampleItem(item.item_id, label, level)
            for item, label, level in zip(items, example.labels, example.levels, strict=True)
        ],
        _by_level(example.query_stats),
        _by_level(example.user_stats),
        example.user_activity,
    )


class ExampleFile:
    """Writes the file, which a resumed run truncates to the length that `flush` returned at its checkpoint.

    In a compressed file (.gz) each flush ends a gzip member, so that the part before it is a complete file.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open `path`, truncated to `length` bytes.

        Raises:
            PrectrError: it cannot be written, or is shorter than `length`.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
            size = self._file.seek(0, 2)
            if size < length:
                self._file.close()
                raise PrectrError(
                    f"{path}: has {size} bytes, but the run had written {length}: put the original file back,",
                    Remedy.RESTART,
                )
            self._file.truncate(length)
            self._file.seek(length)
        except OSError as error:
            raise self._write_error(error) from error
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, example: Example) -> None:
        """Append the line of an example."""
        line = _encode(example_line(example))
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BUFFER:
            self.flush()

    def flush(self) -> int:
        """Write what is buffered; return the length of the file."""
        try:
            if self._lines:
                data = b"\n".join(self._lines) + b"\n"
                compressed = self._path.suffix == ".gz"
                self._file.write(gzip.compress(data, 6, mtime=0) if compressed else data)
                self._lines.clear()
                self._size = 0
            self._file.flush()
        except OSError as error:
            raise self._write_error(error) from error
        return self._file.tell()

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self.flush()
        self._file.close()

    def _write_error(self, error: OSError) -> PrectrError:
        return PrectrError(f"{self._path}: the examples cannot be written: {error.strerror}")


def read_examples(path: str | PathLike[str]) -> Iterator[ExampleLine]:
    """Yield the lines of a file of examples, .jsonl or .jsonl.gz.

        >>> import prectr
        >>> clicks = sum(item.click for example in prectr.read_examples("examples.jsonl.gz") for item in example.items)

    Raises:
        InputError: the file cannot be read, or a line is not an example.
    """
    number = 0
    try:
        with gzip.open(path) if Path(path).suffix == ".gz" else Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 (named in the error)
                yield _decode(line)
    except OSError as error:
        raise InputError(f"{path}: the examples cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: corrupt after line {number}: {error}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: line {number} is not an example: {error}") from error


def _by_level(counts: LevelCounts) -> dict[str, tuple[int, int]]:
    return {str(level): (counts[level - 1], counts[level + 3]) for level in LEVELS}
