"""Reads from a store without being its owner, also while a process works with it."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prectr.state.errors import StateError
from prectr.state.store import Store, StoreOptions

_ROCKSDICT: Final = "rocksdict-config.json"
_MAX_ATTEMPTS: Final = 5
"""An owner at work removes files that it has merged: what was listed may be gone when it is opened."""


def read_live_store(folder: Path, keys: Sequence[bytes]) -> list[bytes | None]:
    """The values of `keys` in the store in `folder`, in their order; None where there is none.

    Nothing is written there: even read-only, the library writes files of its own into the folder of a store, so the
    store is opened through links, from elsewhere. What its owner has written by now is seen, his log included.

    Raises:
        StateError: there is no store, or it cannot be opened.
    """
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        try:
            return _read_through_links(folder, keys)
        except (StateError, FileNotFoundError) as error:
            if not folder.is_dir():
                raise StateError(f"{folder}: there is no state store: name a folder that a run has written") from error
            if not attempts_left:
                if isinstance(error, StateError):
                    raise
                raise StateError(f"{folder}: its files change too fast to be read: try again") from error
    raise AssertionError


def _read_through_links(folder: Path, keys: Sequence[bytes]) -> list[bytes | None]:
    with TemporaryDirectory(prefix="prectr-peek-") as scratch:
        view = Path(scratch) / folder.name
        view.mkdir()
        for file in folder.iterdir():
            if file.name != _ROCKSDICT:
                (view / file.name).symlink_to(file.resolve())
        try:
            store = Store(view, StoreOptions(read_only=True))
            try:
                return store.get_many(keys)
            finally:
                store.close()
        except StateError as error:
            raise StateError(str(error).replace(str(view), str(folder))) from error
