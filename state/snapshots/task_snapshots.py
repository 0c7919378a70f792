"""Snapshots of one task's state: uploaded next to those of earlier and later owners of the task, pruned, restored.

`manifests/OFFSET-EPOCH-SAVE.json` lists the files of a snapshot, `files/EPOCH/SAVE-SHA256`. Each opening of a task is
a writer with a random epoch of its own. Nothing stops an old writer that was suspended from resuming later, so the
following holds whatever it was about to do:

- No path is ever reused: a writer stores files only in the folder of its epoch, under the number of the save, and its
  manifests reference only files that the same save or earlier ones since its last manifest stored, or that this last
  manifest references. A file that is no longer referenced by its writer's manifests is never referenced again.
- A manifest is written after its files. Then the writer checks that its previous manifest still exists. If it does
  not, another writer may have deleted files that both reference: everything is uploaded again under a new epoch.
- Pruning deletes the manifests older than the newest complete ones, lists the manifests again, and only then deletes
  the files that the deleted manifests referenced and no remaining one does. Either the writer of a file notices that
  its last manifest is gone, or pruning sees the new manifest that references the file.
- Files that no manifest references belong to another writer's unfinished save and are kept for a day. (A save that
  takes longer can end with missing files: like any corrupt snapshot, it is ignored by pruning, and restoring falls
  back to the previous one.)
"""

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, Final

import msgspec

from prectr.state.errors import Remedy, StateError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.state.identity import config_diff
from prectr.state.snapshots import restore
from prectr.state.snapshots.manifest import (
    MAX_MANIFEST_BYTES,
    SnapshotManifest,
    StoredFile,
    decode_manifest,
    encode_manifest,
    is_manifest_name,
    offset_of,
    writer_epoch_of,
)
from prectr.state.snapshots.restore import sha256_of
from prectr.state.snapshots.storage import SnapshotStorage

_MANIFESTS: Final = "manifests"
_FILES: Final = "files"
UNREFERENCED_RETENTION: Final = 24 * 3600.0
"""Seconds after which an unreferenced file of another writer is considered abandoned."""
_log = logging.getLogger(__name__)


class SnapshotResult(msgspec.Struct, frozen=True):
    """Result of a save.

    Attributes:
        uploaded_bytes: size of the files that were not stored yet.
        total_bytes: size of the whole snapshot.
    """

    offset: int
    uploaded_bytes: int
    total_bytes: int


def task_log_fields(name: str) -> dict[str, str | int]:
    """Return stage and partition of a task named STAGE-PARTITION as log fields; empty for another name."""
    stage, _, partition = name.rpartition("-")
    return {"stage": stage, "partition": int(partition)} if stage and partition.isdecimal() else {}


class TaskSnapshots:
    """The snapshots of one task, as seen by one writer. Not thread-safe, except for `stop`."""

    def __init__(self, storage: SnapshotStorage, task: str, identity: msgspec.Struct, keep: int = 2) -> None:
        """Start a new writer epoch, without any access to the storage.

        Args:
            task: STAGE-PARTITION, the name of the task's folder.
            identity: the system that the state belongs to; a snapshot of another system is rejected.
            keep: complete snapshots that pruning keeps.
        """
        self.corrupt_count = 0
        """Snapshots found corrupt or incomplete since the opening."""
        self._storage = storage.subfolder(task)
        self._task = task
        self._identity: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(identity))
        self._keep = keep
        self._manifests: dict[str, SnapshotManifest] = {}
        self._corrupt: set[str] = set()
        self._digest_cache: dict[tuple[str, int, int], str] = {}
        self._stop = Event()
        self._writer_epoch = secrets.token_hex(8)
        self._save_number = 0
        self._last_manifest: SnapshotManifest | None = None
        self._stored_by_digest: dict[str, StoredFile] = {}

    def newest(self) -> SnapshotManifest | None:
        """Return the newest snapshot whose manifest can be decoded; its files are not checked.

        Raises:
            StateError: the storage cannot be read, or the snapshot belongs to another system.
        """
        return next((found for name in self._manifest_names() if (found := self._read_manifest(name))), None)

    def restore(
        self, target: Path, newer_than: int = -1, problem_of: Callable[[Path], str] = lambda folder: ""
    ) -> int | None:
        """Replace `target` by the newest complete snapshot with an offset above `newer_than`.

        A crash at any moment leaves `target` as it was, absent, or complete.

        Args:
            problem_of: returns what is wrong with the state in a downloaded folder, which is then skipped for the
                snapshot before; empty if nothing.

        Returns:
            The snapshot's offset; None, with `target` untouched, if there is no such snapshot.

        Raises:
            StateError: the storage or the disk fails, or the snapshot belongs to another system.
        """
        restore.recover_partial_restore(target)
        self.newest()  # rejects snapshots of another system even if none is newer
        tried: set[str] = set()
        # Listed again each time: a running writer may have pruned the one that was tried.
        while names := [n for n in self._manifest_names() if n not in tried and offset_of(n) > newer_than]:
            name = names[0]
            tried.add(name)
            manifest = self._read_manifest(name)
            problem = "its manifest cannot be decoded"
            if manifest is not None:
                files = self._storage.subfolder(_FILES)
                problem = restore.download_snapshot(files, manifest, target, problem_of)
                if not problem:
                    return manifest.offset
            if name in self._manifest_names():
                self.corrupt_count += 1
                self._corrupt.add(name)
                _log.warning(
                    "%s: snapshot %s is corrupt: %s: trying the previous one",
                    self._storage.name,
                    name,
                    problem,
                    extra=task_log_fields(self._task),
                )
        return None

    def save(self, checkpoint: Path, offset: int, created_at: float) -> SnapshotResult:
        """Upload the files of a store's checkpoint that are not stored yet, then the manifest.

        Args:
            checkpoint: folder of the RocksDB checkpoint.
            offset: offset of the next record that the state processes.
            created_at: seconds since 1970.

        Raises:
            StateError: the storage cannot be used or belongs to another system, or `stop` was called.
        """
        files = self._checkpoint_files(checkpoint)
        existing = self._manifest_names()
        for name in existing:
            self._read_manifest(name)
        if self._last_manifest is not None and self._last_manifest.name not in existing:
            self._start_new_epoch()
        manifest, uploaded = self._upload(files, offset, created_at)
        if self._last_manifest is not None and self._last_manifest.name not in self._manifest_names():
            superseded = manifest
            self._start_new_epoch()
            manifest, reuploaded = self._upload(files, offset, created_at)
            uploaded += reuploaded
            self._storage.delete(f"{_MANIFESTS}/{superseded.name}")
        self._last_manifest = manifest
        self._stored_by_digest = {file.sha256: file for file in manifest.files}
        return SnapshotResult(offset, uploaded, sum(file.size for file in manifest.files))

    def prune(self) -> None:
        """Delete the snapshots older than the newest complete ones, and files that no snapshot references.

        Call it after `save`. This writer's last snapshot is always kept.

        Raises:
            StateError: the storage cannot be used, or belongs to another system.
        """
        last = self._last_manifest
        if last is None:
            return
        manifests = {name: self._read_manifest(name) for name in self._manifest_names()}
        # Listed after the manifests: files are stored before their manifest, so a file missing here has been deleted.
        sizes = self._storage.file_sizes(_FILES)
        whole = [
            name
            for name, manifest in manifests.items()
            if manifest and name not in self._corrupt and manifest.sizes().items() <= sizes.items()
        ]
        expired = [name for name in manifests if name < whole[self._keep - 1]] if len(whole) >= self._keep else []
        unreferenced: set[str] = set()
        for name in expired:
            if name != last.name:
                manifest = manifests[name]
                unreferenced |= manifest.sizes().keys() if manifest else set()
                self._storage.delete(f"{_MANIFESTS}/{name}")
        remaining = {name: self._read_manifest(name) for name in self._manifest_names()}
        self._manifests = {name: manifest for name, manifest in remaining.items() if manifest}
        referenced = {path for manifest in remaining.values() if manifest for path in manifest.sizes()}
        # The files that it references are not known: it may be incompletely written.
        unreadable = {writer_epoch_of(name) for name, manifest in remaining.items() if manifest is None}
        written = self._storage.modified_at(f"{_MANIFESTS}/{last.name}")
        for path in sizes.keys() - referenced:
            writer_epoch = path.partition("/")[0]
            is_own = writer_epoch == last.writer_epoch
            if writer_epoch not in unreadable and (is_own or path in unreferenced or self._is_abandoned(path, written)):
                self._storage.delete(f"{_FILES}/{path}")

    def stop(self) -> None:
        """Make a `save` in another thread fail with a StateError before its next file."""
        self._stop.set()

    def _start_new_epoch(self) -> None:
        """Continue under a new epoch, without using any file stored before."""
        self._writer_epoch = secrets.token_hex(8)
        self._save_number = 0
        self._last_manifest = None
        self._stored_by_digest = {}

    def _manifest_names(self) -> list[str]:
        """List the current manifests, newest first."""
        return sorted(filter(is_manifest_name, self._storage.list_names(_MANIFESTS)), reverse=True)

    def _read_manifest(self, name: str) -> SnapshotManifest | None:
        """Read a manifest, once, since it never changes; None if it is corrupt, gone or incomplete."""
        if name in self._manifests:
            return self._manifests[name]
        content = self._storage.read(f"{_MANIFESTS}/{name}", MAX_MANIFEST_BYTES)
        manifest = decode_manifest(name, content) if content is not None else None
        if manifest is None:
            return None
        if manifest.identity != self._identity:
            raise StateError(
                f"{self._storage.name}: snapshot {name} is of another system: "
                f"{config_diff(self._identity, manifest.identity)}: use the settings that it was made with,",
                Remedy.OTHER_SNAPSHOTS,
            )
        self._manifests[name] = manifest
        return manifest

    def _upload(self, files: dict[Path, StoredFile], offset: int, created_at: float) -> tuple[SnapshotManifest, int]:
        """Upload the files that are not stored yet and the manifest; return it and the bytes uploaded."""
        self._save_number += 1
        existing_sizes = self._storage.file_sizes(f"{_FILES}/{self._writer_epoch}")
        uploaded = 0
        for path, file in files.items():
            if self._stop.is_set():
                raise StateError(f"{self._storage.name}: snapshot at offset {offset} cancelled: the task is closing")
            stored = self._stored_by_digest.get(file.sha256)
            # A stored file that was truncated or deleted would corrupt every later snapshot.
            if stored is None or existing_sizes.get(f"{stored.save_number:08}-{stored.sha256}") != stored.size:
                stored = msgspec.structs.replace(file, save_number=self._save_number)
                self._storage.upload(path, f"{_FILES}/{self._writer_epoch}/{stored.save_number:08}-{stored.sha256}")
                self._stored_by_digest[file.sha256] = stored
                existing_sizes[f"{stored.save_number:08}-{stored.sha256}"] = stored.size
                uploaded += stored.size
        manifest = SnapshotManifest(
            identity=self._identity,
            offset=offset,
            writer_epoch=self._writer_epoch,
            save_number=self._save_number,
            created_at=created_at,
            files=tuple(
                msgspec.structs.replace(file, save_number=self._stored_by_digest[file.sha256].save_number)
                for file in files.values()
            ),
        )
        failpoint(Failpoint.SNAPSHOT)
        try:
            self._storage.write(f"{_MANIFESTS}/{manifest.name}", encode_manifest(manifest))
        except StateError:
            # It may have been written all the same and be pruned with its files, which must not be referenced again.
            self._start_new_epoch()
            raise
        return manifest, uploaded

    def _checkpoint_files(self, checkpoint: Path) -> dict[Path, StoredFile]:
        """List the files of a checkpoint with their digests; an SST file never changes and is hashed once."""
        digests: dict[tuple[str, int, int], str] = {}
        files = {}
        try:
            for path in sorted(checkpoint.iterdir()):
                stat = path.stat()
                key = (path.name, stat.st_size, stat.st_mtime_ns)
                digest = self._digest_cache.get(key) or sha256_of(path)
                if path.suffix == ".sst":
                    digests[key] = digest
                files[path] = StoredFile(path.name, digest, stat.st_size, 0)
        except OSError as error:
            raise StateError(f"{checkpoint}: the checkpoint cannot be read: {error.strerror}") from error
        self._digest_cache = digests
        return files

    def _is_abandoned(self, path: str, now: float | None) -> bool:
        """Whether an unreferenced file is old. `now` is by the storage's clock, as the file's time is."""
        written = self._storage.modified_at(f"{_FILES}/{path}")
        return now is not None and written is not None and now - written > UNREFERENCED_RETENTION
