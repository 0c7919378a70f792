"""Brings the files of a snapshot back: aside, checked against the manifest, then renamed into place."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from prectr.state.errors import StateError
from prectr.state.failpoints import at_point
from prectr.state.manifest import Manifest, StoredFile
from prectr.state.snapshot_storage import Location

_FETCHES: Final = 8
"""Files fetched side by side; a file of a bucket is mostly waiting."""


def bring_back(files: Location, manifest: Manifest, target: Path) -> str:
    """Put the state of `manifest` in the place of `target`; what is wrong with its files, or "" where it is done.

    files: the folder that the paths of the manifest start from.

    Raises:
        StateError: location or disk fail.
    """
    aside = _aside(target)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        wrong = _fetch(files, manifest, aside)
        if not wrong:
            _put_in_place(aside, target)
        return wrong
    except OSError as error:
        raise StateError(
            f"{target}: snapshot {manifest.name} cannot be put there: {error.strerror}. Mend that or use another "
            "--state-dir, then run the same command again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def tidy(target: Path) -> None:
    """Put back what a restore that was killed had moved away, and remove what it had fetched."""
    replaced = _replaced(target)
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    for left in (_aside(target), replaced):
        shutil.rmtree(left, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.restoring"


def _replaced(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"


def _fetch(files: Location, manifest: Manifest, aside: Path) -> str:
    by_path: dict[str, list[StoredFile]] = {}
    for file in manifest.files:
        by_path.setdefault(manifest.path(file), []).append(file)

    def fetch(path: str) -> str:
        first, *same = by_path[path]
        to = aside / first.name
        if not files.download(path, to):
            return f"{first.name} is missing"
        if (size := to.stat().st_size) != first.size:
            return f"{first.name} has {size} bytes, not {first.size}"
        if sha256_of(to) != first.sha256:
            return f"the SHA-256 of {first.name} is not the manifest's"
        for other in same:
            shutil.copyfile(to, aside / other.name)
        for file in by_path[path]:
            _sync(aside / file.name)
        return ""

    pool = ThreadPoolExecutor(_FETCHES, thread_name_prefix="restore")
    try:
        for wrong in pool.map(fetch, by_path):
            if wrong:
                return wrong
            at_point("restore")
    finally:
        pool.shutdown(cancel_futures=True)
    return ""


def _put_in_place(aside: Path, target: Path) -> None:
    _sync(aside)
    if target.exists():
        target.rename(_replaced(target))
    aside.rename(target)
    _sync(target.parent)
    shutil.rmtree(_replaced(target), ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
