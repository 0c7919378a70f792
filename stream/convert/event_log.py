"""Converted events: validated by the decoder of a replay, sorted by event time, written to a log file."""

import gzip
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from prectr.state.errors import PrectrError
from prectr.stream.convert.external_sort import ExternalSorter
from prectr.stream.convert.outcome import ConversionReport
from prectr.stream.events.contract import Click, InvalidEvent
from prectr.stream.events.decode import decode_lines

_PARQUET_BYTES: Final = 1 << 24
"""Bytes of events in memory, and so in a row group, at a time."""
_encode = msgspec.json.Encoder().encode


class EventLog:
    """Collects events in any order; `write` writes them by event time, pages before clicks of the same time."""

    def __init__(self, sorter: ExternalSorter, report: ConversionReport) -> None:
        """`report`: counts the events added."""
        self._sorter = sorter
        self._report = report

    def add(self, event: dict[str, Any], place: str) -> None:
        """Add an event; one that the decoder rejects is counted with its place instead."""
        line = _encode(event)
        decoded = decode_lines([line])[0]
        if isinstance(decoded, InvalidEvent):
            self.reject(decoded.reason, place, decoded.detail)
            return
        if isinstance(decoded, Click):
            self._report.clicks += 1
        else:
            self._report.pages += 1
            self._report.impressions += len(decoded.items)
        self._sorter.add((decoded.ts, isinstance(decoded, Click)), line)

    def reject(self, reason: str, place: str, detail: str) -> None:
        """Count a row, page or click that is no event."""
        self._report.skip(reason, place, detail)

    def write(self, out: Path) -> None:
        """Write all events to `out`, whole or not at all; the suffix chooses the format.

        Raises PrectrError where it cannot be written.
        """
        partial = out.with_name(f".{out.name}.partial")
        lines = (line for _, line in self._sorter)
        try:
            if out.name.endswith(".parquet"):
                _write_parquet(partial, lines)
            else:
                _write_lines(partial, out.name, lines)
            os.replace(partial, out)
        except OSError as error:
            raise PrectrError(f"{out} cannot be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)


def _write_lines(path: Path, name: str, lines: Iterator[bytes]) -> None:
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("wb", buffering=1 << 20))
        if name.endswith(".gz"):
            # Without time and name in the header, the same events give the same bytes.
            compressed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
            file = cast("BinaryIO", stack.enter_context(compressed))
        elif name.endswith(".zst"):
            file = stack.enter_context(zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False))
        for line in lines:
            file.write(line)
            file.write(b"\n")


def _write_parquet(path: Path, lines: Iterator[bytes]) -> None:
    """Write one event to a row, as JSON in a column `event`."""
    schema = pa.schema([("event", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[str] = []
        size = 0
        for line in lines:
            rows.append(line.decode())
            size += len(line)
            if size >= _PARQUET_BYTES:
                writer.write_table(pa.table({"event": rows}, schema=schema))
                rows, size = [], 0
        writer.write_table(pa.table({"event": rows}, schema=schema))
