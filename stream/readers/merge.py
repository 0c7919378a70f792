"""The lines of all files of a log in one order: merged by event time, or one file after the other."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from prectr.state.errors import InputError
from prectr.stream.readers.blocks import BLOCK_BYTES
from prectr.stream.readers.event_times import LOOKAHEAD, NO_TIME, event_times, merge_keys
from prectr.stream.readers.logfile import LogFile

Order = Literal["time", "given"]

_SHORTEST: Final = 1 / 8
"""A batch that ends with a file has at least this share of the lines, so that small files cost no more than large."""
_MAX_BATCH_BYTES: Final = 1 << 25
_SHARED_BYTES: Final = 1 << 25
"""Bytes of lines in memory that all files share; every file has at least `_MIN_BLOCK_BYTES`."""
_MIN_BLOCK_BYTES: Final = 1 << 14
_MAX_PEEKED_BYTES: Final = 1 << 26
"""Bytes of lines of files that are not due yet; beyond that, a file is read again when it is due."""


class LogPart(msgspec.Struct):
    """What is left to read of a file.

    Attributes:
        index: number that identifies the file in runs.
        lines_read: lines before the first one to read.
        time: key (`merge_keys`) of the last line that was read; None at the start.
    """

    file: LogFile
    index: int
    lines_read: int = 0
    time: int | None = None


class Run(NamedTuple):
    """Consecutive lines of one file. time: key of the last one; None where files are not merged by time."""

    file: int
    first_line: int
    lines: int
    time: int | None


class LogBatch(msgspec.Struct):
    """Consecutive lines of the log, as runs of lines of its files; ended: files that were read to their end."""

    lines: list[bytes]
    runs: list[Run]
    ended: list[int]


def read_in_order(
    parts: Sequence[LogPart], batch_lines: int, *, order: Order, whole_lines: bool = False
) -> Iterator[LogBatch]:
    """Yield the lines of a log, at most `batch_lines` at a time, in bounded memory.

    Each file is read in its own order. By "time", the next line is that with the smallest key of all files' next lines
    (`merge_keys`: its event time, if no clock is wrong), of equals that of the first file. The order depends on the
    lines alone, so reading can be resumed at any line. A batch ends with a file if it is not too short for that, and at
    32 MiB.

    Args:
        parts: what is to be read, in the given order.
        whole_lines: leave last lines without a line feed unread.

    Raises:
        InputError: as `LogFile.chunks`, after everything before it in the order has been yielded.
    """
    if order == "given" or len(parts) <= 1:
        yield from _one_after_the_other(parts, batch_lines, whole_lines)
    else:
        yield from _Merge(parts, whole_lines).batches(batch_lines)


def _one_after_the_other(parts: Sequence[LogPart], batch_lines: int, whole_lines: bool) -> Iterator[LogBatch]:
    batch, size = LogBatch([], [], []), 0
    for part in parts:
        line = part.lines_read
        chunks = part.file.chunks(line, whole_lines=whole_lines)
        while True:
            try:
                lines = next(chunks, None)
            except InputError:
                if batch.lines or batch.ended:
                    yield batch
                raise
            if lines is None:
                break
            start = 0
            while start < len(lines):
                taken = lines[start : start + batch_lines - len(batch.lines)]
                batch.lines += taken
                batch.runs.append(Run(part.index, line, len(taken), part.time))
                start, line, size = start + len(taken), line + len(taken), size + sum(map(len, taken))
                if len(batch.lines) >= batch_lines or size >= _MAX_BATCH_BYTES:
                    yield batch
                    batch, size = LogBatch([], [], []), 0
        batch.ended.append(part.index)
        if len(batch.lines) >= batch_lines * _SHORTEST:
            yield batch
            batch, size = LogBatch([], [], []), 0
    yield batch


class _Source:
    """A file of a merge: the lines that were read of it and not taken yet, with their keys.

    `key` is that of the next line, or a smaller one as long as the file is not loaded.
    """

    def __init__(self, part: LogPart, whole_lines: bool) -> None:
        self.part = part
        self.key = NO_TIME if part.time is None else part.time
        self.is_loaded = False
        self.read_alone = False
        self.error: InputError | None = None
        self.size = 0
        self._whole_lines = whole_lines
        self._floor = self.key
        self._line = part.lines_read

    def load(self, block_bytes: int) -> None:
        """Start to read the file, from the first line that has not been taken."""
        self.is_loaded = True
        self._chunks = self.part.file.chunks(self._line, block_bytes=block_bytes, whole_lines=self._whole_lines)
        self._lines: list[bytes] = []
        self._times = event_times([])
        self._keys: list[int] = []
        self._next = 0
        self._at_end = False
        self._fill()

    def unload(self) -> None:
        """Drop what was read; the file is read again when it is due."""
        self._chunks.close()  # type: ignore[attr-defined]  # it is a generator
        self.part.file.bytes_read = 0
        self.is_loaded, self.size = False, 0
        self._lines, self._keys, self._times = [], [], event_times([])

    @property
    def has_lines(self) -> bool:
        """Whether a line is left, as far as the file can be read; it must be loaded."""
        return self._next < len(self._keys)

    def take(self, limit: tuple[int, int] | None, count: int) -> tuple[list[bytes], Run]:
        """Take the next lines: at most `count`, and only those before `limit`, (key, index) of another file."""
        first, last = self._next, len(self._keys)
        if limit is not None:
            # Of equal keys, the first file's goes first.
            bisect = bisect_right if self.part.index < limit[1] else bisect_left
            last = bisect(self._keys, limit[0], first + 1, last)
        last = min(last, first + count)
        lines = self._lines[first:last]
        self._floor = self._keys[last - 1]
        run = Run(self.part.index, self._line, last - first, self._floor)
        self._line += last - first
        self._next = last
        if last == len(self._keys):
            self._fill()
        else:
            self.key = self._keys[last]
        return lines, run

    def _fill(self) -> None:
        """Read on until at least one line has a key, or the file ends."""
        self._lines = self._lines[self._next :]
        self._times = self._times[self._next :]
        self._keys, self._next = [], 0
        while not self._keys and not (self._at_end and not self._lines):
            if not self._at_end:
                self._read_chunk()
            due = len(self._lines) if self._at_end or self.read_alone else max(0, len(self._lines) - LOOKAHEAD)
            self._keys = (
                [self._floor] * due if self.read_alone else merge_keys(self._times[: due + LOOKAHEAD], due, self._floor)
            )
        if self._keys:
            self.key = self._keys[0]
        self.size = sum(map(len, self._lines))

    def _read_chunk(self) -> None:
        try:
            chunk = next(self._chunks, None)
        except InputError as error:
            self.error, chunk = error, None
        if chunk is None:
            self._at_end = True
            return
        self._lines += chunk
        if not self.read_alone:
            times = event_times(chunk)
            self._times = np.concatenate((self._times, times)) if len(self._times) else times


class _Merge:
    """Files that are merged by the keys of their next lines."""

    def __init__(self, parts: Sequence[LogPart], whole_lines: bool) -> None:
        self._sources = {part.index: _Source(part, whole_lines) for part in parts}
        self._loaded = 0

    def batches(self, batch_lines: int) -> Iterator[LogBatch]:
        batch, size = LogBatch([], [], []), 0
        heap = self._next_keys(batch)
        while heap:
            index = heappop(heap)[1]
            source = self._sources[index]
            if not source.is_loaded:
                source.load(self._block_bytes(self._loaded + 1))
                self._loaded += 1
                if source.has_lines and heap and (source.key, index) > heap[0]:
                    heappush(heap, (source.key, index))
                    continue
            if source.has_lines:
                source.read_alone = not heap
                lines, run = source.take(heap[0] if heap else None, batch_lines - len(batch.lines))
                _add_run(batch, lines, run)
                size += sum(map(len, lines))
            if source.has_lines:
                heappush(heap, (source.key, index))
            elif source.error is not None:
                if batch.lines or batch.ended:
                    yield batch
                raise source.error
            else:
                batch.ended.append(index)
                self._loaded -= 1
                del self._sources[index]
            least = batch_lines * _SHORTEST if batch.ended else batch_lines
            if len(batch.lines) >= least or size >= _MAX_BATCH_BYTES:
                yield batch
                batch, size = LogBatch([], [], []), 0
        yield batch

    def _next_keys(self, batch: LogBatch) -> list[tuple[int, int]]:
        """Return a heap of (key, index) of every file's next line. A file that was read before has a lower bound."""
        heap = []
        peeked_bytes = 0
        block_bytes = self._block_bytes(len(self._sources))
        for index, source in list(self._sources.items()):
            if source.part.time is None:
                source.load(block_bytes)
                if not source.has_lines and source.error is None:
                    batch.ended.append(index)
                    del self._sources[index]
                    continue
                if peeked_bytes + source.size > _MAX_PEEKED_BYTES:
                    source.unload()
                else:
                    self._loaded += 1
                    peeked_bytes += source.size
            heap.append((source.key, index))
        heapify(heap)
        return heap

    @staticmethod
    def _block_bytes(files: int) -> int:
        """Return the size of a block, if so many files are loaded."""
        return max(_MIN_BLOCK_BYTES, min(BLOCK_BYTES, _SHARED_BYTES // files))


def _add_run(batch: LogBatch, lines: list[bytes], run: Run) -> None:
    batch.lines += lines
    if batch.runs and batch.runs[-1].file == run.file:
        before = batch.runs[-1]
        batch.runs[-1] = Run(run.file, before.first_line, before.lines + run.lines, run.time)
    else:
        batch.runs.append(run)
