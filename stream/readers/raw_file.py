"""Files of a log as raw streams; however many are being read, few of them are open at a time."""

import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from prectr.stream.readers.errors import CorruptLogError

_MAX_OPEN: Final = 64
"""Open files; the one that was read longest ago is closed, and opened again at its place when it is read next."""

_open_files: "OrderedDict[int, RawFile]" = OrderedDict()


class RawFile(io.RawIOBase):
    """A file to read, which must stay what it was when reading began: it may only grow.

    Args:
        path: the file.
        expected: the file's status when reading began; by default, when it is first read.

    Reading raises CorruptLogError if the file was replaced or cut short since then.
    """

    def __init__(self, path: Path, expected: os.stat_result | None = None) -> None:
        self._path = path
        self._expected = expected
        self._position = 0
        self._descriptor: int | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte to read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place; returns it, from the start of the file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self._opened()).st_size if start is None else start)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes, all that are left if it is negative; b"" at the end."""
        if size < 0:
            return super().readall()
        found = os.pread(self._opened(), size, self._position)
        self._position += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into `buffer`; returns their number, 0 at the end."""
        read = os.preadv(self._opened(), [buffer], self._position)
        self._position += read
        return read

    def check_unchanged(self) -> None:
        """Check, at the end of the file, that it was neither cut short nor rewritten while it was read.

        Raises:
            CorruptLogError: it was.
        """
        now = os.fstat(self._opened())
        expected = self._expected or now
        if now.st_size < expected.st_size:
            raise CorruptLogError(
                f"it was cut short while it was read, from {expected.st_size} to {now.st_size} bytes: "
                "put the whole file back"
            )
        if now.st_size == expected.st_size and now.st_mtime_ns != expected.st_mtime_ns:
            raise CorruptLogError("it was rewritten while it was read: a log's file may only grow")

    def close(self) -> None:
        """Close the file for good."""
        self._release()
        super().close()

    def _opened(self) -> int:
        """Return the descriptor of the file, opened if it was not."""
        if self._descriptor is None:
            while len(_open_files) >= _MAX_OPEN:
                _open_files.popitem(last=False)[1]._release()
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(descriptor)
            if self._expected is None:
                self._expected = status
            elif (status.st_dev, status.st_ino) != (self._expected.st_dev, self._expected.st_ino):
                os.close(descriptor)
                raise CorruptLogError("another file took its place while the log was read: a log's file may only grow")
            self._descriptor = descriptor
        _open_files[id(self)] = self
        _open_files.move_to_end(id(self))
        return self._descriptor

    def _release(self) -> None:
        _open_files.pop(id(self), None)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
