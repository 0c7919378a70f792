"""The files of a run's log: which of them were read before, how far, and what is left to read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prectr.state.errors import CheckpointError, Remedy, UsageError
from prectr.stream.readers import LogBatch, LogFile, LogPart, Order, Run
from prectr.stream.readers.logfile import START_BYTES
from prectr.stream.replay.rejections import Place
from prectr.stream.replay.run_checkpoint import LogFileProgress

LINE_BITS: Final = 40
"""Bits of the number of a line in the offset that stands for it; the bits above are the file's index."""


class LogFiles:
    """The files that a run has been given, now and before, in the order of their first appearance.

    A file that was read before is known by its size and first 64 KiB, under whatever path; it may have grown.
    """

    def __init__(self, given: Sequence[LogFile], progress: list[LogFileProgress]) -> None:
        """Find the files that were read before among those that are given.

        Args:
            progress: of all files so far; it is continued.

        Raises:
            UsageError: a file is given twice, or one in whose middle the run stopped is not given.
            CheckpointError: there is another file in the place of one that was read.
        """
        self.progress = progress
        self.bytes_total = sum(file.identity.size for file in given)
        self._given = _match(given, progress)
        self._unread: dict[int, LogFile] = {}

    def parts(self, order: Order, run_dir: Path, *, finished: bool) -> list[LogPart]:
        """Return what is left to read, in the given order.

        Raises:
            UsageError: the run is finished and something is left; or, in the given order, a file has grown after
                another one was read.
        """
        started = [index for index, progress in enumerate(self.progress) if progress.lines_read]
        parts: list[LogPart] = []
        for index, file in self._given:
            progress = self.progress[index]
            if progress.done and file.identity.size == progress.size:
                continue
            if finished:
                raise UsageError(
                    f"{run_dir}: the run is finished (its last pages were flushed), so {file.path} cannot "
                    "follow: flush only with the last part of a log,",
                    Remedy.RESTART,
                )
            if order == "given" and progress.lines_read and (parts or index != started[-1]):
                # Its new lines must directly follow those that were read of it.
                previous = parts[-1].file.path if parts else self.progress[started[-1]].path
                raise UsageError(
                    f"{file.path}: was read before {previous} and has grown since: "
                    "put its new lines into a file of their own,",
                    Remedy.RESTART,
                )
            parts.append(LogPart(file, index, progress.lines_read, progress.time))
        for part in parts:
            progress, identity = self.progress[part.index], part.file.identity
            progress.path, progress.size, progress.done = identity.path, identity.size, False
            progress.sha256, progress.start_sha256 = identity.head_sha256, identity.start_sha256
        self._unread = {part.index: part.file for part in parts}
        return parts

    @property
    def bytes_read(self) -> int:
        """Bytes of the given files read so far, of `bytes_total`."""
        return self.bytes_total - sum(file.identity.size - file.bytes_read for file in self._unread.values())

    def advance(self, batch: LogBatch) -> None:
        """Note that a batch has been processed."""
        for run in batch.runs:
            progress = self.progress[run.file]
            progress.lines_read += run.lines
            progress.time = run.time
        for index in batch.ended:
            file = self._unread.pop(index)
            # A line that is still being written is read when the file is given again.
            self.progress[index].done = not file.has_unfinished_line

    def locate(self, offset: int) -> Place:
        """Return the place that an offset from `offsets_of` stands for."""
        return Place(self.progress[offset >> LINE_BITS].path, offset & ((1 << LINE_BITS) - 1))

    def file_of(self, offset: int) -> LogFileProgress:
        """Return the file that an offset from `offsets_of` lies in."""
        return self.progress[offset >> LINE_BITS]


def offsets_of(runs: Sequence[Run]) -> Sequence[int]:
    """Return an offset for each line of these runs, by which its file and line are known; a range if consecutive."""
    ranges: list[range] = []
    for run in runs:
        start = run.file << LINE_BITS | run.first_line
        if ranges and ranges[-1].stop == start:
            ranges[-1] = range(ranges[-1].start, start + run.lines)
        else:
            ranges.append(range(start, start + run.lines))
    return ranges[0] if len(ranges) == 1 else [offset for each in ranges for offset in each]


def _match(given: Sequence[LogFile], progress: list[LogFileProgress]) -> list[tuple[int, LogFile]]:
    """Pair each given file with its index in `progress`, which new files are appended to."""
    by_path: dict[str, LogFile] = {}
    for file in given:
        if by_path.setdefault(file.identity.path, file) is not file:
            raise UsageError(f"{file.path}: given twice: each file of a log is read once")
    known = _Known(progress)
    matched = {path: index for path, file in by_path.items() if (index := known.at_path(file)) is not None}
    for same_size in (True, False):
        for path, file in by_path.items():
            if path not in matched and (found := known.elsewhere(file, same_size=same_size)) is not None:
                matched[path] = found
    for index in known.unmatched:
        replaced = by_path.get(progress[index].path)
        if replaced is not None and replaced.identity.path not in matched:
            raise CheckpointError(
                f"{replaced.path}: not the file that was read (its size or its first bytes differ): put the old one "
                "back,",
                Remedy.RESTART,
            )
        if not progress[index].done:
            raise UsageError(
                f"{progress[index].path}: the run stopped in the middle of this file: give it again,", Remedy.RESTART
            )
    pairs = []
    for path, file in by_path.items():
        if path not in matched:
            matched[path] = len(progress)
            identity = file.identity
            progress.append(LogFileProgress(identity.path, identity.size, identity.head_sha256, identity.start_sha256))
        pairs.append((matched[path], file))
    return pairs


class _Known:
    """Files that were read before and are not found yet.

    unmatched: their indexes; files of which nothing was read are only known by their path.
    """

    def __init__(self, progress: Sequence[LogFileProgress]) -> None:
        self._progress = progress
        self._by_path = {each.path: index for index, each in enumerate(progress)}
        self.unmatched = {index: None for index, each in enumerate(progress) if each.lines_read}
        self._by_start: dict[str, list[int]] = {}
        for index in self.unmatched:
            self._by_start.setdefault(progress[index].start_sha256, []).append(index)
        self._small_sizes = sorted(
            {progress[index].size for index in self.unmatched if progress[index].size < START_BYTES}
        )

    def at_path(self, file: LogFile) -> int | None:
        """Return the index of the file that was read at this path, if it still begins the same."""
        index = self._by_path.get(file.identity.path)
        if index is None or not self._progress[index].lines_read:
            return index
        return self._take(index) if self._is_same(file, index) else None

    def elsewhere(self, file: LogFile, *, same_size: bool) -> int | None:
        """Return the index of a file that was read at another path; it may have grown unless `same_size`."""
        if not self.unmatched:
            return None
        starts = [file.identity.start_sha256]
        if not same_size:
            starts += [file.head_sha256(size) for size in self._small_sizes if size < file.identity.size]
        for start in starts:
            for index in self._by_start.get(start, ()):
                is_candidate = index in self.unmatched and (
                    not same_size or self._progress[index].size == file.identity.size
                )
                if is_candidate and self._is_same(file, index):
                    return self._take(index)
        return None

    def _take(self, index: int) -> int:
        self.unmatched.pop(index, None)
        return index

    def _is_same(self, file: LogFile, index: int) -> bool:
        known = self._progress[index]
        return file.identity.size >= known.size and file.head_sha256(known.size) == known.sha256
