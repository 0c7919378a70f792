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
from prectr.state.failpoints import at_point
from prectr.state.manifest import Manifest, StoredFile, decode, differences, encode, is_name, offset_of, owner_of
from prectr.state.restore import sha256_of
from prectr.state.snapshot_storage import Location

_MANIFESTS: Final = "manifests"
_FILES: Final = "files"
UNNAMED_FOR: Final = 24 * 3600.0
"""Seconds after which a file of another owner that no manifest names is taken for what a dead one left."""
_log = logging.getLogger(__name__)


class Saved(msgspec.Struct, frozen=True):
    """What a save did. uploaded: bytes that were not there yet; total: bytes of the whole snapshot."""

    offset: int
    uploaded: int
    total: int


def task_of(name: str) -> dict[str, str | int]:
    """Stage and partition of a task named STAGE-PARTITION, as its log lines have them; nothing of another name."""
    stage, _, partition = name.rpartition("-")
    return {"stage": stage, "partition": int(partition)} if stage and partition.isdecimal() else {}


class Snapshots:
    """The snapshots of one task, as one owner of it. One thread at a time may call, but for `stop`."""

    def __init__(self, location: Location, task: str, identity: msgspec.Struct, keep: int = 2) -> None:
        """Begin as a new owner; nothing is asked of the location yet.

        task: STAGE-PARTITION, the folder's name. identity: what the state belongs to; a snapshot of another is refused.
        keep: whole snapshots that pruning leaves.
        """
        self.damaged = 0
        """Snapshots found damaged, or their files gone, since the opening."""
        self._location = location.below(task)
        self._task = task
        self._identity: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(identity))
        self._keep = keep
        self._known: dict[str, Manifest] = {}
        self._bad: set[str] = set()
        self._digests: dict[tuple[str, int, int], str] = {}
        self._stop = Event()
        self._owner = secrets.token_hex(8)
        self._saves = 0
        self._last: Manifest | None = None
        self._stored: dict[str, StoredFile] = {}

    def newest(self) -> Manifest | None:
        """The newest snapshot whose manifest can be read; its files are not looked at.

        Raises:
            StateError: the location cannot be read, or the snapshot belongs to another system.
        """
        return next((found for name in self._names() if (found := self._manifest(name))), None)

    def restore(self, target: Path, newer_than: int = -1) -> int | None:
        """Put the newest whole snapshot with an offset above `newer_than` in the place of `target`; its offset.

        None, and `target` untouched, where there is none. A crash at any moment leaves at `target` what was there,
        nothing, or the whole snapshot.

        Raises:
            StateError: location or disk fail, or the snapshot belongs to another system.
        """
        restore.tidy(target)
        self.newest()  # refuses another system's, also where none is newer
        tried: set[str] = set()
        # Looked up anew each time: a living owner may have pruned the one that was tried.
        while names := [n for n in self._names() if n not in tried and offset_of(n) > newer_than]:
            name = names[0]
            tried.add(name)
            manifest = self._manifest(name)
            wrong = "its manifest cannot be decoded"
            if manifest is not None:
                wrong = restore.bring_back(self._location.below(_FILES), manifest, target)
                if not wrong:
                    return manifest.offset
            if name in self._names():
                self.damaged += 1
                self._bad.add(name)
                _log.warning(
                    "%s: snapshot %s is damaged: %s: trying the one before",
                    self._location.name,
                    name,
                    wrong,
                    extra=task_of(self._task),
                )
        return None

    def save(self, checkpoint: Path, offset: int, created: float) -> Saved:
        """Store the files of a store's checkpoint that are not there yet, then the manifest.

        offset: of the record that the state takes next. created: seconds since the epoch.

        Raises:
            StateError: the location cannot be used, belongs to another system, or `stop` was called.
        """
        files = self._checkpoint_files(checkpoint)
        others = self._names()
        for name in others:
            self._manifest(name)
        if self._last is not None and self._last.name not in others:
            self._begin()
        manifest, uploaded = self._write(files, offset, created)
        if self._last is not None and self._last.name not in self._names():
            overtaken = manifest
            self._begin()
            manifest, again = self._write(files, offset, created)
            uploaded += again
            self._location.delete(f"{_MANIFESTS}/{overtaken.name}")
        self._last = manifest
        self._stored = {file.sha256: file for file in manifest.files}
        return Saved(offset, uploaded, sum(file.size for file in manifest.files))

    def prune(self) -> None:
        """Remove the snapshots behind the newest whole ones, and files that no snapshot needs.

        To be called after `save`. This owner's last snapshot stays, wherever it stands.

        Raises:
            StateError: the location cannot be used, or belongs to another system.
        """
        last = self._last
        if last is None:
            return
        manifests = {name: self._manifest(name) for name in self._names()}
        # After the manifests, since files are stored before them: what is not there now has gone.
        sizes = self._location.sizes(_FILES)
        whole = [
            name
            for name, manifest in manifests.items()
            if manifest and name not in self._bad and manifest.sizes().items() <= sizes.items()
        ]
        doomed = [name for name in manifests if name < whole[self._keep - 1]] if len(whole) >= self._keep else []
        unneeded: set[str] = set()
        for name in doomed:
            if name != last.name:
                manifest = manifests[name]
                unneeded |= manifest.sizes().keys() if manifest else set()
                self._location.delete(f"{_MANIFESTS}/{name}")
        left = {name: self._manifest(name) for name in self._names()}
        self._known = {name: manifest for name, manifest in left.items() if manifest}
        needed = {path for manifest in left.values() if manifest for path in manifest.sizes()}
        # What it names is not known: it may just be being written.
        unreadable = {owner_of(name) for name, manifest in left.items() if manifest is None}
        written = self._location.modified(f"{_MANIFESTS}/{last.name}")
        for path in sizes.keys() - needed:
            owner = path.partition("/")[0]
            mine = owner == last.owner
            if owner not in unreadable and (mine or path in unneeded or self._is_left_over(path, written)):
                self._location.delete(f"{_FILES}/{path}")

    def stop(self) -> None:
        """Let a `save` that is under way in another thread end before its next file, with a StateError."""
        self._stop.set()

    def _begin(self) -> None:
        """Go on under a new token: nothing that was stored before is used."""
        self._owner = secrets.token_hex(8)
        self._saves = 0
        self._last = None
        self._stored = {}

    def _names(self) -> list[str]:
        """Manifests that there are now, the newest first."""
        return sorted(filter(is_name, self._location.names(_MANIFESTS)), reverse=True)

    def _manifest(self, name: str) -> Manifest | None:
        """A manifest; None where it is damaged, gone, or not whole yet. It is read once, since it never changes."""
        if name in self._known:
            return self._known[name]
        content = self._location.read(f"{_MANIFESTS}/{name}")
        manifest = decode(name, content) if content is not None else None
        if manifest is None:
            return None
        if manifest.identity != self._identity:
            raise StateError(
                f"{self._location.name}: snapshot {name} is of another system: "
                f"{'; '.join(differences(self._identity, manifest.identity))}. "
                "Use another --snapshots, or the settings that it was made with"
            )
        self._known[name] = manifest
        return manifest

    def _write(self, files: dict[Path, StoredFile], offset: int, created: float) -> tuple[Manifest, int]:
        """Store what is not there, and the manifest; the bytes stored."""
        self._saves += 1
        there = self._location.sizes(f"{_FILES}/{self._owner}")
        uploaded = 0
        for path, file in files.items():
            if self._stop.is_set():
                raise StateError(f"{self._location.name}: snapshot at offset {offset} given up: the task closes")
            stored = self._stored.get(file.sha256)
            # One that somebody has cut off or deleted would damage every snapshot from now on.
            if stored is None or there.get(f"{stored.save:08}-{stored.sha256}") != stored.size:
                stored = msgspec.structs.replace(file, save=self._saves)
                self._location.upload(path, f"{_FILES}/{self._owner}/{stored.save:08}-{stored.sha256}")
                self._stored[file.sha256] = stored
                there[f"{stored.save:08}-{stored.sha256}"] = stored.size
                uploaded += stored.size
        manifest = Manifest(
            identity=self._identity,
            offset=offset,
            owner=self._owner,
            save=self._saves,
            created=created,
            files=tuple(msgspec.structs.replace(file, save=self._stored[file.sha256].save) for file in files.values()),
        )
        at_point("snapshot")
        try:
            self._location.write(f"{_MANIFESTS}/{manifest.name}", encode(manifest))
        except StateError:
            # It may be there all the same, and be pruned with its files: none of them may be named again.
            self._begin()
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
                digest = self._digests.get(key) or sha256_of(path)
                if path.suffix == ".sst":
                    digests[key] = digest
                files[path] = StoredFile(path.name, digest, stat.st_size, 0)
        except OSError as error:
            raise StateError(f"{checkpoint}: the checkpoint cannot be read: {error.strerror}") from error
        self._digests = digests
        return files

    def _is_left_over(self, path: str, now: float | None) -> bool:
        """Whether a file that no manifest names is old. now: by the clock of the location, as the file's time is."""
        written = self._location.modified(f"{_FILES}/{path}")
        return now is not None and written is not None and now - written > UNNAMED_FOR
