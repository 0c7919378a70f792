"""What was no valid event, kept with its bytes, its place and the reason."""

import os
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.errors import PrectrError, StateError

_BUFFER_BYTES: Final = 1 << 20


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that was refused.

    value: its bytes, in JSON as base64 (of a line over 1 MiB the first 1 MiB + 1). topic: the topic or
    the file it came from; offset: its offset there, in a file the number of lines (rows) in front of it.
    reason: one of a few short words; detail: what was wrong, in words.
    """

    value: bytes
    topic: str
    partition: int
    offset: int
    reason: str
    detail: str


class DeadLetterFile:
    """A file of dead letters, one JSON object a line, that can be taken back to the length it had at a cut."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open the file and cut it to `length` bytes; made where it is missing and `length` is 0.

        Raises StateError where the file is shorter than that, and PrectrError where it cannot be written.
        """
        self._path = path
        self._pending = bytearray()
        self._encode = msgspec.json.Encoder().encode
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
        except OSError as error:
            raise self._write_error(error) from error
        if size < length:
            os.close(self._file)
            raise StateError(
                f"{path} has {size} bytes, and the run had written {length}: put it back, or start over with --restart"
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
        """Bytes appended so far, those in memory included."""
        return self._length + len(self._pending)

    def append(self, dead_letter: DeadLetter) -> None:
        """Take a letter; it is on the disk after the next `flush`. Raises PrectrError if the disk is full."""
        self._pending += self._encode(dead_letter)
        self._pending += b"\n"
        if len(self._pending) >= _BUFFER_BYTES:
            self._write()

    def flush(self) -> int:
        """Write and sync everything; returns the file's length, which `__init__` takes it back to."""
        self._write()
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._write_error(error) from error
        return self._length

    def close(self) -> None:
        """Write what is left and close the file, which is closed even if that fails."""
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
            f"{self._path} cannot be written: {error.strerror}. Make room or give access, and start the same command "
            "again: it goes on from its last cut"
        )
