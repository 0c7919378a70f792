"""Reads from a store without owning it: another process may have it open, and its folder may be read-only."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prectr.state.errors import PrectrError, StateError
from prectr.state.store import Store, StoreOptions

_ROCKSDICT: Final = "rocksdict-config.json"
_MAX_ATTEMPTS: Final = 5
"""The owner deletes files after a compaction, so a listed file may be gone by the time it is opened."""


def read_live_store(folder: Path, keys: Sequence[bytes]) -> list[bytes | None]:
    """Return the values of `keys` in the store in `folder`, in the order of the keys; None for a missing key.

    The folder is not written to: rocksdict creates files in a store's folder even in read-only mode, so the store is
    opened through symbolic links in a temporary folder. Everything that the owner has written by now is visible,
    including its write-ahead log.

    Raises:
        StateError: there is no store, or it cannot be opened.
    """
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        try:
            with _scratch_folder() as scratch:
                return _read_through_links(folder, keys, Path(scratch))
        except (StateError, FileNotFoundError) as error:
            if not folder.is_dir():
                raise StateError(f"{folder}: there is no state store: name a folder that a run has written") from error
            if not attempts_left:
                if isinstance(error, StateError):
                    raise
                raise StateError(f"{folder}: its files change too fast to be read: try again") from error
    raise AssertionError


def _scratch_folder() -> "TemporaryDirectory[str]":
    try:
        return TemporaryDirectory(prefix="prectr-peek-")
    except OSError as error:
        raise PrectrError(
            f"there is no usable temporary folder ({error.strerror}): set TMPDIR to a folder that can be written to"
        ) from error


def _read_through_links(folder: Path, keys: Sequence[bytes], scratch: Path) -> list[bytes | None]:
    view = scratch / folder.name
    view.mkdir()
    for file in folder.iterdir():
        if file.name != _ROCKSDICT:
            (view / file.name).symlink_to(file.absolute())
    try:
        store = Store(view, StoreOptions(read_only=True))
        try:
            return store.get_many(keys)
        finally:
            store.close()
    except StateError as error:
        raise StateError(error.message.replace(str(view), str(folder)), *error.remedies) from error
