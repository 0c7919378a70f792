"""Checkpoint folders, snapshots of them, corruption and kills, and a storage with a hook before each operation."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from fsspec.implementations.memory import MemoryFileSystem

from prectr.state.failpoints import Failpoint, set_failpoint_hook
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.state.snapshots.task_snapshots import SnapshotResult, TaskSnapshots

TABLE_COUNT = 3
"""Number of tables in a checkpoint made by `checkpoint`."""


class Origin(msgspec.Struct, frozen=True):
    """The identity of the state in these tests."""

    cluster: str = "c1"
    stage: str = "join"
    partition: int = 0
    config: dict[str, int] = msgspec.field(default_factory=lambda: {"window": 600})


def contents(offset: int) -> dict[str, bytes]:
    """Files of the state at an offset: tables come and go, the log is empty at odd offsets, two files are equal."""
    files = {f"{number:06}.sst": f"table {number}".encode() for number in range(offset, offset + TABLE_COUNT)}
    log = b"" if offset % 2 else b"log %d" % offset
    return files | {"000009.log": log, "CURRENT": b"MANIFEST", "SAME": b"MANIFEST", "MANIFEST-1": b"m%d" % offset}


def checkpoint(folder: Path, offset: int) -> Path:
    """Return the state at `offset` as a folder, created once."""
    path = folder / f"checkpoint-{offset}"
    if not path.exists():
        path.mkdir(parents=True)
        for name, content in contents(offset).items():
            (path / name).write_bytes(content)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class HookedStorage(SnapshotStorage):
    """A storage that calls `before` before each operation, and `written` after a write."""

    def __init__(
        self, url: str, before: Callable[[str], None], written: Callable[[str], None] = lambda path: None
    ) -> None:
        super().__init__(url)
        self.before_call = before
        self.after_write = written

    def list_names(self, folder: str) -> list[str]:
        self.before_call(f"list {folder}")
        return super().list_names(folder)

    def file_sizes(self, folder: str) -> dict[str, int]:
        self.before_call(f"list {folder}")
        return super().file_sizes(folder)

    def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
        self.before_call(f"read {path}")
        return super().read(path, max_bytes)

    def write(self, path: str, content: bytes) -> None:
        self.before_call(f"write {path}")
        super().write(path, content)
        self.after_write(path)

    def upload(self, file: Path, path: str) -> None:
        self.before_call(f"upload {path}")
        super().upload(file, path)

    def delete(self, path: str) -> None:
        self.before_call(f"delete {path}")
        super().delete(path)


def complete_snapshots_in_memory(root: str) -> dict[int, dict[str, bytes]]:
    """An oracle for `memory://` that shares no code with the program: the files of each complete snapshot by offset."""
    store: dict[str, Any] = MemoryFileSystem.store
    found = {}
    for path in [path for path in store if path.startswith(f"/{root}/manifests/")]:
        manifest = json.loads(store[path].getvalue())
        files = {}
        for file in manifest["files"]:
            stored = store.get(f"/{root}/files/{manifest['writer_epoch']}/{file['save_number']:08}-{file['sha256']}")
            if stored is None or hashlib.sha256(stored.getvalue()).hexdigest() != file["sha256"]:
                break
            files[file["name"]] = stored.getvalue()
        else:
            found[manifest["offset"]] = files
    return found


def open_snapshots(url: str | Path, *, origin: Origin | None = None, keep: int = 2) -> TaskSnapshots:
    return TaskSnapshots(SnapshotStorage(str(url)), "join-0", origin or Origin(), keep)


def save_snapshots(snapshots: TaskSnapshots, folder: Path, *offsets: int) -> list[SnapshotResult]:
    found = []
    for offset in offsets:
        found.append(snapshots.save(checkpoint(folder, offset), offset, 1.5))
        snapshots.prune()
    return found


def manifests(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "manifests").iterdir())


def stored_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "files").rglob("*") if path.is_file())


def truncate_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def corrupt_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


class SimulatedKill(BaseException):
    """Simulates a kill: nothing catches it. (The code that runs while it propagates only cleans up.)"""


def kill_at_failpoint(kill_point: Failpoint, times: int = 1) -> None:
    passed = []

    def hook(point: Failpoint) -> None:
        passed.append(point)
        if point is kill_point and passed.count(kill_point) == times:
            set_failpoint_hook(None)
            raise SimulatedKill

    set_failpoint_hook(hook)
