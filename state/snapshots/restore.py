"""Downloads a snapshot: into a staging folder, verified against the manifest, then renamed into place."""

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from prectr.state.errors import Remedy, StateError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.state.fsync import fsync_path
from prectr.state.snapshots.manifest import SnapshotManifest, StoredFile
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.state.system_limits import limit_advice

_MAX_DOWNLOADS: Final = 8
"""Parallel downloads; fetching a file from a bucket is mostly waiting."""


def download_snapshot(
    files: SnapshotStorage, manifest: SnapshotManifest, target: Path, problem_of: Callable[[Path], str]
) -> str:
    """Replace the folder `target` by the state of `manifest`.

    Args:
        files: the folder that the manifest's paths are relative to.
        problem_of: returns what is wrong with the state in a folder that is about to replace `target`; empty: nothing.

    Returns:
        What is wrong with the snapshot's files; empty if the state is in place.

    Raises:
        StateError: the storage or the disk fails.
    """
    staging = _staging_dir(target)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        problem = _download_files(files, manifest, staging) or problem_of(staging)
        if not problem:
            _swap_in(staging, target)
        return problem
    except OSError as error:
        raise StateError(
            f"{target}: snapshot {manifest.name} cannot be restored there: {error.strerror}: "
            f"{limit_advice(error) or 'fix that and run the same command again'},",
            Remedy.OTHER_STATE_DIR,
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def recover_partial_restore(target: Path) -> None:
    """Undo a restore that was killed: move the previous state back and remove what had been downloaded."""
    replaced = _replaced_dir(target)
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    for leftover in (_staging_dir(target), replaced):
        shutil.rmtree(leftover, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
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
            fsync_path(staging / file.name)
        return ""

    pool = ThreadPoolExecutor(_MAX_DOWNLOADS, thread_name_prefix="restore")
    try:
        for problem in pool.map(download, by_path):
            if problem:
                return problem
            failpoint(Failpoint.RESTORE)
    finally:
        pool.shutdown(cancel_futures=True)
    return ""


def _swap_in(staging: Path, target: Path) -> None:
    fsync_path(staging)
    if target.exists():
        target.rename(_replaced_dir(target))
    staging.rename(target)
    fsync_path(target.parent)
    shutil.rmtree(_replaced_dir(target), ignore_errors=True)
