"""Reads examples files: as rows, as an Arrow table, or with pandas."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from prectr.state.errors import InputError, UsageError
from prectr.stream.readers.blocks import BLOCK_BYTES, gzip_blocks, plain_blocks, zstd_blocks
from prectr.stream.readers.errors import CorruptLogError
from prectr.stream.sinks.example_line import ExampleLine

By = Literal["page", "impression"]

_decode = msgspec.json.Decoder(ExampleLine).decode
_BLOCKS: Final = {".gz": gzip_blocks, ".zst": zstd_blocks}


class WrittenExamples:
    """The pages of an examples file, in the total order. Each iteration reads the file anew, a part at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[ExampleLine]:
        """Yield the pages.

        Raises:
            InputError: the file cannot be read, or a line is not an example.
        """
        return self._read_parquet() if self._path.suffix == ".parquet" else self._read_lines()

    def to_arrow(self, by: By = "page") -> Any:
        """Return all of them as a `pyarrow.Table`.

        Args:
            by: "page": one row a page, with the items as a list; the columns are those of a Parquet file of examples.
                "impression": one row an item of a page, with the columns of both; the page's features are
                `page_features`, and each model's score is a column `score_MODEL`.

        Raises:
            InputError: the file cannot be read, or a line is not an example.
            UsageError: `by` is something else.
        """
        import pyarrow as pa  # noqa: PLC0415 (pyarrow takes time to import)

        from prectr.stream.sinks.example_table import SCHEMA, to_batches, to_impressions  # noqa: PLC0415

        if by not in ("page", "impression"):
            raise UsageError(f"by={by!r}: it is 'page' or 'impression'")
        pages = pa.Table.from_batches(to_batches(self), SCHEMA)
        return pages if by == "page" else to_impressions(pages)

    def to_pandas(self, by: By = "impression") -> Any:
        """Return all of them as a `pandas.DataFrame`; pandas is not installed with this package.

        Args:
            by: as in `to_arrow`.

        Raises:
            InputError: the file cannot be read, or a line is not an example.
            UsageError: pandas is not installed, or `by` is something else.
        """
        try:
            import_module("pandas")
        except ImportError as error:
            raise UsageError("to_pandas needs pandas, which is not installed: install it, or use to_arrow()") from error
        return self.to_arrow(by).to_pandas()

    def _read_lines(self) -> Iterator[ExampleLine]:
        number = 0
        try:
            blocks = _BLOCKS.get(self._path.suffix, plain_blocks)
            for number, line in enumerate(_split(blocks(self._path, lambda _: None, BLOCK_BYTES, None)), 1):  # noqa: B007 (named in the error)
                yield _decode(line)
        except OSError as error:
            raise self._read_error(error.strerror or error) from error
        except CorruptLogError as error:
            raise InputError(f"{self._path}: corrupt after line {number}: {error}") from error
        except msgspec.DecodeError as error:
            raise InputError(f"{self._path}: line {number} is not an example: {error}") from error

    def _read_parquet(self) -> Iterator[ExampleLine]:
        import pyarrow as pa  # noqa: PLC0415 (pyarrow takes time to import)

        from prectr.stream.sinks.example_table import read_parquet  # noqa: PLC0415

        number = 0
        try:
            for number, line in enumerate(read_parquet(self._path), 1):  # noqa: B007 (named in the error)
                yield line
        except msgspec.ValidationError as error:
            raise InputError(f"{self._path}: row {number + 1} is not an example: {error}") from error
        except OSError as error:
            raise self._read_error(error.strerror or error) from error
        except pa.ArrowException as error:
            raise self._read_error(error) from error

    def _read_error(self, reason: object) -> InputError:
        return InputError(f"{self._path}: the examples cannot be read: {reason}")


def read_examples(path: str | PathLike[str]) -> WrittenExamples:
    """Read a file of `replay(…, examples=…)` or `prectr examples`: JSON lines, plain or compressed, or Parquet.

        >>> import prectr
        >>> clicks = sum(item.click for page in prectr.read_examples("examples.parquet") for item in page.items)
        >>> table = prectr.read_examples("examples.parquet").to_arrow(by="impression")

    The file is read when it is iterated over, or converted.
    """
    return WrittenExamples(Path(fspath(path)))


def _split(blocks: Iterable[bytes]) -> Iterator[bytes]:
    tail = b""
    for block in blocks:
        *lines, tail = (tail + block).split(b"\n")
        yield from lines
    if tail:
        yield tail
