"""Exclusive use of a folder by one process."""

import errno
import fcntl
import os
from pathlib import Path

from prectr.state.errors import StateError
from prectr.state.private_files import make_private_folder, open_private_file


class FolderLock:
    """A lock held from construction to `release`, or to the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Lock `folder`, which is created if it does not exist.

        Raises:
            StateError: another process holds the lock, or the folder cannot be written.
        """
        try:
            make_private_folder(folder)
            self._file = open_private_file(folder / ".lock")
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StateError(f"{folder / '.lock'}: is a symbolic link, and is not followed: delete it") from error
            raise StateError(f"{folder}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise StateError(f"{folder}: another process is using it: stop that one first") from error

    def release(self) -> None:
        """Release the lock."""
        os.close(self._file)
