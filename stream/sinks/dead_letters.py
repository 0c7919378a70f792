"""Dead letters of a replay: invalid records with their bytes, location and reason, one JSON object per line."""

import os
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import PrectrError, Remedy, StateError
from prectr.state.private_files import open_private_file

_BUFFER_BYTES: Final = 1 << 20


class DeadLetter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A rejected record, or several equal ones on consecutive lines.

    Attributes:
        value: its bytes, as base64 in JSON (of a line over 1 MiB the first 1 MiB + 1).
        topic: the topic or file that it came from.
        offset: its offset there; in a file the number of lines (rows) before it.
        reason: short code, used as a metric label.
        detail: what was wrong, as a sentence.
        count: number of these records; the first is at `offset`.
    """

    value: bytes
    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    count: int = 1


class DeadLetterFile:
    """A file of dead letters that can be truncated to the length it had at a checkpoint."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open the file and truncate it to `length` bytes; a missing file is created if `length` is 0.

        Raises:
            StateError: the file is shorter than `length`.
            PrectrError: it cannot be written.
        """
        self._path = path
        self._pending = bytearray()
        self._encode = msgspec.json.Encoder().encode
        try:
            self._file = open_private_file(path)
            size = os.fstat(self._file).st_size
        except OSError as error:
            raise self._write_error(error) from error
        if size < length:
            os.close(self._file)
            raise StateError(
                f"{path} has {size} bytes, but the run had written {length}: put the original file back,",
                Remedy.RESTART,
            )
        try:
            os.ftruncate(self._file, length)
            os.lseek(self._file, length, os.SEEK_SET)
        except OSError as error:
            os.close(self._file)
            raise self._write_error(error) from error
        self._length = length

    @property
    def length(self) -> int:
        """Bytes appended so far, including those in memory."""
        return self._length + len(self._pending)

    def append(self, dead_letter: DeadLetter) -> None:
        """Append a dead letter, durable after the next `flush`; raises PrectrError if the disk is full."""
        self._pending += self._encode(dead_letter)
        self._pending += b"\n"
        if len(self._pending) >= _BUFFER_BYTES:
            self._write()

    def flush(self) -> int:
        """Write and fsync everything; return the file's length, for truncating it on resume."""
        self._write()
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._write_error(error) from error
        return self._length

    def close(self) -> None:
        """Write what is buffered and close the file, even if writing fails."""
        try:
            self._write()
        finally:
            os.close(self._file)

    def _write(self) -> None:
        try:
            while self._pending:
                written = os.write(self._file, self._pending)
                self._length += written
                del self._pending[:written]
        except OSError as error:
            raise self._write_error(error) from error

    def _write_error(self, error: OSError) -> PrectrError:
        return PrectrError(
            f"{self._path} cannot be written: {error.strerror}: free space or grant access, then run the same command "
            "again: it resumes from the last checkpoint"
        )
