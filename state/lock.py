"""Exclusive use of a folder by one process."""

import fcntl
from pathlib import Path

from prectr.state.errors import StateError


class FolderLock:
    """A lock held from construction to `release`, or to the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Lock `folder`, which is created if it does not exist.

        Raises:
            StateError: another process holds the lock, or the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / ".lock").open("w")
        except OSError as error:
            raise StateError(f"{folder}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise StateError(f"{folder}: another process is using it: stop that one first") from error

    def release(self) -> None:
        """Release the lock."""
        self._file.close()
