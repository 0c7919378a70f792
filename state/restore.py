"""Brings the files of a snapshot back: aside, checked against the manifest, then renamed into place."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from prectr.state.errors import StateError
from prectr.state.failpoints import failpoint
from prectr.state.manifest import SnapshotManifest, StoredFile
from prectr.state.snapshot_storage import SnapshotStorage

_MAX_DOWNLOADS: Final = 8
"""Files fetched side by side; a file of a bucket is mostly waiting."""


def download_snapshot(files: SnapshotStorage, manifest: SnapshotManifest, target: Path) -> str:
    """Put the state of `manifest` in the place of `target`; what is wrong with its files, or "" where it is done.

    files: the folder that the paths of the manifest start from.

    Raises:
        StateError: location or disk fail.
    """
    staging = _staging_dir(target)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        problem = _download_files(files, manifest, staging)
        if not problem:
            _swap_in(staging, target)
        return problem
    except OSError as error:
        raise StateError(
            f"{target}: snapshot {manifest.name} cannot be put there: {error.strerror}. Mend that or use another "
            "--state-dir, then run the same command again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def recover_partial_restore(target: Path) -> None:
    """Put back what a restore that was killed had moved away, and remove what it had fetched."""
    replaced = _replaced_dir(target)
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    for leftover in (_staging_dir(target), replaced):
        shutil.rmtree(leftover, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _staging_dir(target: Path) -> Path:
    return target.parent / f".{target.name}.restoring"


def _replaced_dir(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"


def _download_files(files: SnapshotStorage, manifest: SnapshotManifest, staging: Path) -> str:
    by_path: dict[str, list[StoredFile]] = {}
    for file in manifest.files:
        by_path.setdefault(manifest.path(file), []).append(file)

    def download(path: str) -> str:
        first, *duplicates = by_path[path]
        local = staging / first.name
        if not files.download(path, local):
            return f"{first.name} is missing"
        if (size := local.stat().st_size) != first.size:
            return f"{first.name} has {size} bytes, not {first.size}"
        if sha256_of(local) != first.sha256:
            return f"the SHA-256 of {first.name} is not the manifest's"
        for other in duplicates:
            shutil.copyfile(local, staging / other.name)
        for file in by_path[path]:
            _fsync(staging / file.name)
        return ""

    pool = ThreadPoolExecutor(_MAX_DOWNLOADS, thread_name_prefix="restore")
    try:
        for problem in pool.map(download, by_path):
            if problem:
                return problem
            failpoint("restore")
    finally:
        pool.shutdown(cancel_futures=True)
    return ""


def _swap_in(staging: Path, target: Path) -> None:
    _fsync(staging)
    if target.exists():
        target.rename(_replaced_dir(target))
    staging.rename(target)
    _fsync(target.parent)
    shutil.rmtree(_replaced_dir(target), ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
