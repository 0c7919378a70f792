"""Files and folders of a run: private to its user, and never written through a symbolic link of somebody else."""

import os
import shutil
from pathlib import Path
from typing import Final

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, if it does not exist; only its user may enter it.

    A folder that exists keeps its permissions: whoever made it has decided who may read the run.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def open_private_file(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file to write to, which is made if it does not exist, and return its descriptor.

    Raises:
        OSError: it cannot be opened, or is a symbolic link (ELOOP).
    """
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)


def make_empty_private_folder(folder: Path) -> None:
    """Make a folder that is empty and private; what was there under its name is deleted, a link without its target.

    Raises:
        OSError: it cannot be made, or somebody else makes it at the same time (EEXIST).
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    make_private_folder(folder.parent)
    folder.mkdir(mode=_FOLDER_MODE)


def write_private_file(path: Path, content: bytes) -> None:
    """Write a file that only its user may read, or overwrite one.

    Raises:
        OSError: it cannot be written, or is a symbolic link (ELOOP); the error names it.
    """
    try:
        with os.fdopen(open_private_file(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            file.write(content)
    except OSError as error:
        # An error of writing, such as a full disk or a limit on the size of files, names no file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_private(folder: Path) -> None:
    """Take the rights of all others from a folder and all that is in it, whatever the umask was."""
    for path, _, names in os.walk(folder):
        os.chmod(path, _FOLDER_MODE)
        for name in names:
            os.chmod(Path(path, name), _FILE_MODE)
