"""A folder that one process works in at a time."""

import fcntl
from pathlib import Path

from prectr.state.errors import StateError


class FolderLock:
    """Held from construction to `release`, or to the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock on `folder`, made if it is not there.

        Raises:
            StateError: another process has it, or the folder cannot be written.
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
            raise StateError(f"{folder}: another process is working in it: stop that one first") from error

    def release(self) -> None:
        """Let another process have the folder."""
        self._file.close()
