"""External merge sort: sorted runs in a temporary folder, merged at the end."""

import heapq
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

RUN_BYTES: Final = 64 << 20
"""Bytes of records that are sorted in memory at a time."""
_MAX_OPEN_RUNS: Final = 64
_RECORD_OVERHEAD: Final = 200
"""Bytes of Python objects for a record beside its payload, roughly."""

SortKey = tuple[str | int | bool, ...]
Record = tuple[SortKey, bytes]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[SortKey, bytes]).decode


class ExternalSorter:
    """Sorts (key, payload) records by key, those with equal keys in the order in which they were added.

    Memory stays within a few times `run_bytes`. Keys of one sorter must be comparable with each other.
    """

    def __init__(self, folder: Path, run_bytes: int = RUN_BYTES) -> None:
        """`folder`: runs are spilled into a temporary folder in it, which `close` removes."""
        self._spill = tempfile.TemporaryDirectory(prefix=".convert-", dir=folder)
        self._run_bytes = run_bytes
        self._buffer: list[Record] = []
        self._buffered_bytes = 0
        self._runs: list[Path] = []
        self._run_number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, key: SortKey, payload: bytes) -> None:
        """Add a record."""
        self._buffer.append((key, payload))
        self._buffered_bytes += len(payload) + _RECORD_OVERHEAD
        if self._buffered_bytes >= self._run_bytes:
            self._spill_buffer()

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in order; no record may be added afterwards."""
        self._buffer.sort(key=_key_of)
        while len(self._runs) > _MAX_OPEN_RUNS:
            # Neighbours are merged, so that records with equal keys keep their order.
            starts = range(0, len(self._runs), _MAX_OPEN_RUNS)
            self._runs = [self._write_run(_merge(self._runs[start : start + _MAX_OPEN_RUNS])) for start in starts]
        yield from heapq.merge(*map(_read_run, self._runs), self._buffer, key=_key_of)

    def close(self) -> None:
        """Remove the runs."""
        self._buffer = []
        self._spill.cleanup()

    def _spill_buffer(self) -> None:
        self._buffer.sort(key=_key_of)
        self._runs.append(self._write_run(iter(self._buffer)))
        self._buffer = []
        self._buffered_bytes = 0

    def _write_run(self, records: Iterator[Record]) -> Path:
        path = Path(self._spill.name) / f"run-{self._run_number}"
        self._run_number += 1
        with path.open("wb", buffering=1 << 20) as file:
            for record in records:
                encoded = _encode(record)
                file.write(len(encoded).to_bytes(4, "big"))
                file.write(encoded)
        return path


def _merge(runs: list[Path]) -> Iterator[Record]:
    """Merge runs, and remove each once all are read."""
    yield from heapq.merge(*map(_read_run, runs), key=_key_of)
    for run in runs:
        run.unlink()


def _key_of(record: Record) -> SortKey:
    return record[0]


def _read_run(path: Path) -> Iterator[Record]:
    with path.open("rb", buffering=1 << 18) as file:
        while size := file.read(4):
            yield _decode(_read_exactly(file, int.from_bytes(size, "big")))


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise OSError(f"{file.name}: cut short")
    return content
