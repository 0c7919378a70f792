"""A task's store: what a snapshot puts in its place is one that this task can open."""

import errno
import logging
import os
from pathlib import Path

import msgspec
import pytest
import rocksdict

from prectr.state.errors import SystemLimitError
from prectr.state.identity import IDENTITY_KEY, StoreIdentity
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.state.snapshots.task_snapshots import TaskSnapshots
from prectr.state.store import Store
from prectr.stream.kafka.tasks.task_context import SnapshotSettings
from prectr.stream.kafka.tasks.task_store import TaskStore

IDENTITY = StoreIdentity("c1", "joined-pages", "t1", "aggregate", 0, {"window": 600})


def checkpoint(folder: Path, *entries: tuple[bytes, bytes]) -> Path:
    """The checkpoint of a store of this task with these entries."""
    store = Store(folder / "made")
    store.write(dict(entries))
    store.checkpoint(folder / "checkpoint")
    store.close()
    return folder / "checkpoint"


def identity_entry(identity: StoreIdentity = IDENTITY) -> tuple[bytes, bytes]:
    return IDENTITY_KEY, msgspec.msgpack.encode(identity)


@pytest.mark.parametrize("kind", ["no database", "nested", "another system", "no identity"])
def test_a_snapshot_that_is_no_store_of_the_task_is_passed_over(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its manifest and the digests of its files are right: whoever wrote it made them."""
    place = SnapshotStorage(str(tmp_path / "remote"))
    TaskSnapshots(place, "aggregate-0", IDENTITY).save(checkpoint(tmp_path / "a", identity_entry(), (b"k", b"v")), 4, 0)
    forged = tmp_path / "b"
    if kind == "no database":
        forged.mkdir()
        (forged / "CURRENT").write_bytes(b"no database")
    else:
        entry = {
            "nested": (IDENTITY_KEY, b"\x91" * 100_000),
            "another system": identity_entry(StoreIdentity("c2", "joined-pages", "t1", "aggregate", 0, {})),
            "no identity": (b"other", b""),
        }[kind]
        forged = checkpoint(forged, entry)
    TaskSnapshots(place, "aggregate-0", IDENTITY).save(forged, 5, 0)
    task_store = TaskStore(tmp_path / "state" / "aggregate-0", IDENTITY)
    with caplog.at_level(logging.INFO):
        assert task_store.restore_newer(SnapshotSettings(place), "aggregate-0", 0)
    assert task_store.store.get_many([b"k"]) == [b"v"]
    task_store.close()
    assert "is corrupt: its state" in caplog.text
    assert "restored from the snapshot at offset 4" in caplog.text


def test_a_snapshot_that_cannot_be_opened_for_want_of_open_files_is_not_taken_for_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = SnapshotStorage(str(tmp_path / "remote"))
    TaskSnapshots(place, "aggregate-0", IDENTITY).save(checkpoint(tmp_path / "a", identity_entry()), 4, 0)
    task_store = TaskStore(tmp_path / "state" / "aggregate-0", IDENTITY)
    open_store = rocksdict.Rdict

    def open_other(path: str, **options: object) -> rocksdict.Rdict:
        if "restoring" in path:
            raise Exception(f"IO error: While open a file for random read: {os.strerror(errno.EMFILE)}")
        return open_store(path, **options)

    monkeypatch.setattr(rocksdict, "Rdict", open_other)
    with pytest.raises(SystemLimitError, match="the limit of open files"):
        task_store.restore_newer(SnapshotSettings(place), "aggregate-0", 0)
    task_store.close()
    assert "corrupt" not in caplog.text
