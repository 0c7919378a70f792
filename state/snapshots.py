"""Snapshots of one task's state: saved beside what earlier and later owners of the task save, pruned, restored.

`manifests/OFFSET-OWNER-SAVE.json` names the files of a snapshot, `files/OWNER/SAVE-SHA256`. Each opening of a task is
an owner, with a token of its own, and nothing stops an old one that was suspended from going on later. So that it
does no harm, whatever it was about to do:

- No path is ever used twice: an owner stores files in its own folder only, under the number of the save, and names in
  a manifest only files that the same save or earlier ones since its last manifest stored, or that this last manifest
  names. A file that has dropped out of its owner's manifests never comes back.
- A manifest is written when its files are there. Then its owner looks whether its last manifest still exists. If not,
  another owner may have removed files that both name: all is stored again, under a new token.
- Pruning removes manifests behind the newest whole ones, looks again which manifests there are, and only then
  removes what the removed ones named and none that is left names. Either the owner of a file sees that its last
  manifest has gone, or pruning sees the new manifest that names the file.
- Files that no manifest names are another owner's unfinished save, and stay for a day. (A save that lasts longer than
  that can end with files missing: like every damaged snapshot, it does not count when pruning, and restoring falls
  back to the one before.)
"""

import logging
import secrets
from pathlib import Path
from threading import Event
from typing import Any, Final

import msgspec

from prectr.state import restore
from prectr.state.errors import StateError
from prectr.state.failpoints import failpoint
from prectr.state.manifest import (
    SnapshotManifest,
    StoredFile,
    decode_manifest,
    describe_differences,
    encode_manifest,
    is_manifest_name,
    offset_of,
    writer_epoch_of,
)
from prectr.state.restore import sha256_of
from prectr.state.snapshot_storage import SnapshotStorage

_MANIFESTS: Final = "manifests"
_FILES: Final = "files"
UNREFERENCED_RETENTION: Final = 24 * 3600.0
"""Seconds after which a file of another owner that no manifest names is taken for what a dead one left."""
_log = logging.getLogger(__name__)


class SnapshotResult(msgspec.Struct, frozen=True):
    """What a save did. uploaded: bytes that were not there yet; total: bytes of the whole snapshot."""

    offset: int
    uploaded_bytes: int
    total_bytes: int


def task_log_fields(name: str) -> dict[str, str | int]:
    """Stage and partition of a task named STAGE-PARTITION, as its log lines have them; nothing of another name."""
    stage, _, partition = name.rpartition("-")
    return {"stage": stage, "partition": int(partition)} if stage and partition.isdecimal() else {}


class TaskSnapshots:
    """The snapshots of one task, as one owner of it. One thread at a time may call, but for `stop`."""

    def __init__(self, storage: SnapshotStorage, task: str, identity: msgspec.Struct, keep: int = 2) -> None:
        """Begin as a new owner; nothing is asked of the location yet.

        task: STAGE-PARTITION, the folder's name. identity: what the state belongs to; a snapshot of another is refused.
        keep: whole snapshots that pruning leaves.
        """
        self.corrupt_count = 0
        """Snapshots found damaged, or their files gone, since the opening."""
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
        """The newest snapshot whose manifest can be read; its files are not looked at.

        Raises:
            StateError: the location cannot be read, or the snapshot belongs to another system.
        """
        return next((found for name in self._manifest_names() if (found := self._read_manifest(name))), None)

    def restore(self, target: Path, newer_than: int = -1) -> int | None:
        """Put the newest whole snapshot with an offset above `newer_than` in the place of `target`; its offset.

        None, and `target` untouched, where there is none. A crash at any moment leaves at `target` what was there,
        nothing, or the whole snapshot.

        Raises:
            StateError: location or disk fail, or the snapshot belongs to another system.
        """
        restore.recover_partial_restore(target)
        self.newest()  # refuses another system's, also where none is newer
        tried: set[str] = set()
        # Looked up anew each time: a living owner may have pruned the one that was tried.
        while names := [n for n in self._manifest_names() if n not in tried and offset_of(n) > newer_than]:
            name = names[0]
            tried.add(name)
            manifest = self._read_manifest(name)
            problem = "its manifest cannot be decoded"
            if manifest is not None:
                problem = restore.download_snapshot(self._storage.subfolder(_FILES), manifest, target)
                if not problem:
                    return manifest.offset
            if name in self._manifest_names():
                self.corrupt_count += 1
                self._corrupt.add(name)
                _log.warning(
                    "%s: snapshot %s is damaged: %s: trying the one before",
                    self._storage.name,
                    name,
                    problem,
                    extra=task_log_fields(self._task),
                )
        return None

    def save(self, checkpoint: Path, offset: int, created_at: float) -> SnapshotResult:
        """Store the files of a store's checkpoint that are not there yet, then the manifest.

        offset: of the record that the state takes next. created: seconds since the epoch.

        Raises:
            StateError: the location cannot be used, belongs to another system, or `stop` was called.
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
        """Remove the snapshots behind the newest whole ones, and files that no snapshot needs.

        To be called after `save`. This owner's last snapshot stays, wherever it stands.

        Raises:
            StateError: the location cannot be used, or belongs to another system.
        """
        last = self._last_manifest
        if last is None:
            return
        manifests = {name: self._read_manifest(name) for name in self._manifest_names()}
        # After the manifests, since files are stored before them: what is not there now has gone.
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
        # What it names is not known: it may just be being written.
        unreadable = {writer_epoch_of(name) for name, manifest in remaining.items() if manifest is None}
        written = self._storage.modified_at(f"{_MANIFESTS}/{last.name}")
        for path in sizes.keys() - referenced:
            writer_epoch = path.partition("/")[0]
            is_own = writer_epoch == last.writer_epoch
            if writer_epoch not in unreadable and (is_own or path in unreferenced or self._is_abandoned(path, written)):
                self._storage.delete(f"{_FILES}/{path}")

    def stop(self) -> None:
        """Let a `save` that is under way in another thread end before its next file, with a StateError."""
        self._stop.set()

    def _start_new_epoch(self) -> None:
        """Go on under a new token: nothing that was stored before is used."""
        self._writer_epoch = secrets.token_hex(8)
        self._save_number = 0
        self._last_manifest = None
        self._stored_by_digest = {}

    def _manifest_names(self) -> list[str]:
        """Manifests that there are now, the newest first."""
        return sorted(filter(is_manifest_name, self._storage.list_names(_MANIFESTS)), reverse=True)

    def _read_manifest(self, name: str) -> SnapshotManifest | None:
        """A manifest; None where it is damaged, gone, or not whole yet. It is read once, since it never changes."""
        if name in self._manifests:
            return self._manifests[name]
        content = self._storage.read(f"{_MANIFESTS}/{name}")
        manifest = decode_manifest(name, content) if content is not None else None
        if manifest is None:
            return None
        if manifest.identity != self._identity:
            raise StateError(
                f"{self._storage.name}: snapshot {name} is of another system: "
                f"{'; '.join(describe_differences(self._identity, manifest.identity))}. "
                "Use another --snapshots, or the settings that it was made with"
            )
        self._manifests[name] = manifest
        return manifest

    def _upload(self, files: dict[Path, StoredFile], offset: int, created_at: float) -> tuple[SnapshotManifest, int]:
        """Store what is not there, and the manifest; the bytes stored."""
        self._save_number += 1
        existing_sizes = self._storage.file_sizes(f"{_FILES}/{self._writer_epoch}")
        uploaded = 0
        for path, file in files.items():
            if self._stop.is_set():
                raise StateError(f"{self._storage.name}: snapshot at offset {offset} given up: the task closes")
            stored = self._stored_by_digest.get(file.sha256)
            # One that somebody has cut off or deleted would damage every snapshot from now on.
            if stored is None or existing_sizes.get(f"{stored.save_number:08}-{stored.sha256}") != stored.size:
                stored = msgspec.structs.replace(file, save=self._save_number)
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
                msgspec.structs.replace(file, save=self._stored_by_digest[file.sha256].save_number)
                for file in files.values()
            ),
        )
        failpoint("snapshot")
        try:
            self._storage.write(f"{_MANIFESTS}/{manifest.name}", encode_manifest(manifest))
        except StateError:
            # It may be there all the same, and be pruned with its files: none of them may be named again.
            self._start_new_epoch()
            raise
        return manifest, uploaded

    def _checkpoint_files(self, checkpoint: Path) -> dict[Path, StoredFile]:
        """The files of a checkpoint. A table that RocksDB has finished never changes, and is read once."""
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
        """Whether a file that no manifest names is old. now: by the clock of the location, as the file's time is."""
        written = self._storage.modified_at(f"{_FILES}/{path}")
        return now is not None and written is not None and now - written > UNREFERENCED_RETENTION
