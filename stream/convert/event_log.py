"""Events on their way out: checked by the decoder that a replay uses, sorted by event time, written to a log file."""

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
import pyarrow
import pyarrow.parquet
import zstandard

from prectr.state.errors import PrectrError, UsageError
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.outcome import ConversionReport
from prectr.stream.events.contract import Click, InvalidEvent
from prectr.stream.events.decode import decode_lines

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_PARQUET_ROWS: Final = 4096
_encode = msgspec.json.Encoder().encode


class EventLog:
    """Collects events in any order; `write` puts them into a file by event time, pages before clicks of one time."""

    def __init__(self, sorter: ExternalSorter, report: ConversionReport) -> None:
        """`report` counts what is added."""
        self._sorter = sorter
        self._report = report

    def add(self, event: dict[str, Any], place: str) -> None:
        """Add an event unless the decoder refuses it, which is counted with its place."""
        line = _encode(event)
        decoded = decode_lines([line])[0]
        if isinstance(decoded, InvalidEvent):
            self._report.skip(decoded.reason, place, decoded.detail)
            return
        if isinstance(decoded, Click):
            self._report.clicks += 1
        else:
            self._report.pages += 1
            self._report.impressions += len(decoded.items)
        self._sorter.add((decoded.ts, isinstance(decoded, Click)), line)

    def write(self, out: Path) -> None:
        """Write everything to `out`, whole or not at all; the suffix chooses the format.

        Raises PrectrError where it cannot be written.
        """
        partial = out.with_name(f".{out.name}.partial")
        lines = self._lines()
        try:
            if out.name.endswith(".parquet"):
                _write_parquet(partial, lines)
            else:
                _write_lines(partial, out.name, lines)
            os.replace(partial, out)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise PrectrError(f"{out} cannot be written: {error.strerror or error}") from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _lines(self) -> Iterator[bytes]:
        return (line for _, line in self._sorter)


def check_suffix(out: Path) -> None:
    """Raise UsageError for a name from which the format cannot be told."""
    if not out.name.endswith(SUFFIXES):
        raise UsageError(f"--out {out}: its name must end in one of {', '.join(SUFFIXES)}")


def _write_lines(path: Path, name: str, lines: Iterator[bytes]) -> None:
    with _compressed(path, name) as file:
        for line in lines:
            file.write(line)
            file.write(b"\n")


def _compressed(path: Path, name: str) -> AbstractContextManager[BinaryIO]:
    if name.endswith(".gz"):
        # No time and no name in the header: the same events give the same bytes.
        return cast(
            "BinaryIO", gzip.GzipFile(filename="", mode="wb", fileobj=path.open("wb"), mtime=0, compresslevel=6)
        )
    if name.endswith(".zst"):
        return zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(level=6))
    return io.BufferedWriter(io.FileIO(path, "wb"), 1 << 20)


def _write_parquet(path: Path, lines: Iterator[bytes]) -> None:
    """One event a row, as JSON in a column `event`, which the log reader takes."""
    schema = pyarrow.schema([("event", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[str] = []
        for line in lines:
            rows.append(line.decode())
            if len(rows) == _PARQUET_ROWS:
                writer.write_table(pyarrow.table({"event": rows}, schema=schema))
                rows = []
        if rows:
            writer.write_table(pyarrow.table({"event": rows}, schema=schema))
