"""Files and folders of a run: private to its user, and never written through a symbolic link of somebody else."""

import os
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
