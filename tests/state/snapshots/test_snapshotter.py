"""The snapshotter: background uploads, at most one at a time, whose failures never stop a task."""

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from prectr.state.errors import StateError
from prectr.state.snapshots.snapshotter import Snapshotter
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.state.snapshots.task_snapshots import TaskSnapshots
from prectr.state.store import Store, StoreOptions
from tests.kit.stages.snapshots import HookedStorage, Origin

SMALL = StoreOptions(write_buffer=1 << 20, block_cache=1 << 20)
FOREVER = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state" / "join-0", SMALL)
    store.write({b"a": b"1"})
    yield store
    store.close()


class Gate:
    """Blocks an upload at its first operation until it is opened; then each operation raises `error`, if any."""

    def __init__(self, error: Exception | None = None, *, is_open: bool = False) -> None:
        self.error = error
        self.opened = Event()
        if is_open:
            self.opened.set()

    def __call__(self, step: str) -> None:
        assert self.opened.wait(FOREVER)
        if self.error:
            raise self.error


def snapshots(tmp_path: Path, gate: Gate) -> TaskSnapshots:
    return TaskSnapshots(HookedStorage(str(tmp_path / "remote"), gate), "join-0", Origin())


def reader(tmp_path: Path) -> TaskSnapshots:
    return TaskSnapshots(SnapshotStorage(str(tmp_path / "remote")), "join-0", Origin())


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "state").iterdir())


def test_the_store_as_it_was_is_uploaded_while_it_is_written_on(store: Store, tmp_path: Path) -> None:
    gate = Gate()
    snapshotter = Snapshotter(snapshots(tmp_path, gate), store)
    snapshotter.start(7)
    store.write({b"a": b"2", b"b": b""})
    gate.opened.set()
    snapshotter.close(FOREVER)
    progress = snapshotter.progress
    assert (progress.offset, progress.failures, progress.corrupt_count) == (7, 0, 0)
    assert progress.created_at is not None
    assert progress.uploaded_bytes > 0
    assert names(tmp_path) == ["join-0"]
    assert reader(tmp_path).restore(tmp_path / "back") == 7
    back = Store(tmp_path / "back", SMALL)
    assert list(back.scan(b"", b"z")) == [(b"a", b"1")]
    back.close()


def test_a_snapshot_is_due_after_its_time_and_never_while_one_is_under_way(store: Store, tmp_path: Path) -> None:
    now = 100.0
    gate = Gate()
    snapshotter = Snapshotter(snapshots(tmp_path, gate), store, interval=60, clock=lambda: now)
    assert not snapshotter.is_due()
    now = 160.0
    assert snapshotter.is_due()
    snapshotter.start(7)
    now = 1000.0
    assert not snapshotter.is_due()
    gate.opened.set()
    assert snapshotter._upload is not None
    snapshotter._upload.join(FOREVER)
    assert snapshotter.is_due()


def test_a_failed_upload_is_a_warning_and_a_count_and_the_next_one_makes_up_for_it(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(StateError("no answer"), is_open=True)
    snapshotter = Snapshotter(snapshots(tmp_path, gate), store)
    with caplog.at_level(logging.WARNING):
        snapshotter.start(7)
        assert snapshotter._upload is not None
        snapshotter._upload.join(FOREVER)
    assert (snapshotter.progress.offset, snapshotter.progress.failures) == (None, 1)
    (record,) = caplog.records
    assert record.getMessage() == "join-0: snapshot failed: no answer: will retry at the next interval"
    assert names(tmp_path) == ["join-0"]
    gate.error = None
    snapshotter.start(8)
    snapshotter.close(FOREVER)
    assert (snapshotter.progress.offset, snapshotter.progress.failures) == (8, 1)
    assert reader(tmp_path).restore(tmp_path / "back") == 8


def test_a_failed_checkpoint_is_counted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshotter = Snapshotter(snapshots(tmp_path, Gate(is_open=True)), store)
    monkeypatch.setattr("prectr.state.snapshots.snapshotter.secrets.token_hex", lambda length: "taken")
    (tmp_path / "state" / ".join-0.checkpoint-taken").mkdir()
    snapshotter.start(7)
    assert snapshotter.progress.failures == 1
    snapshotter.close()
    assert names(tmp_path) == ["join-0"]


def test_close_aborts_a_slow_upload_and_creates_no_snapshot(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    snapshotter = Snapshotter(snapshots(tmp_path, gate), store)
    snapshotter.start(7)
    snapshotter.close(timeout=0)
    assert snapshotter._upload is not None
    assert snapshotter._upload.daemon
    gate.opened.set()
    snapshotter._upload.join(FOREVER)
    assert snapshotter.progress.offset is None
    assert reader(tmp_path).newest() is None
    assert names(tmp_path) == ["join-0"]
    assert not caplog.records


def test_close_without_any_snapshot_is_nothing(store: Store, tmp_path: Path) -> None:
    Snapshotter(snapshots(tmp_path, Gate()), store).close()
    assert not (tmp_path / "remote").exists()


def test_a_partial_checkpoint_of_a_killed_process_is_removed(store: Store, tmp_path: Path) -> None:
    store.checkpoint(tmp_path / "state" / ".join-0.checkpoint-00aa")
    (tmp_path / "state" / ".join-01.checkpoint-00aa").mkdir()
    Snapshotter(snapshots(tmp_path, Gate()), store)
    assert names(tmp_path) == [".join-01.checkpoint-00aa", "join-0"]


def test_snapshots_found_corrupt_by_the_restore_are_counted(store: Store, tmp_path: Path) -> None:
    owner = reader(tmp_path)
    store.checkpoint(tmp_path / "copy")
    owner.save(tmp_path / "copy", 7, 0.0)
    for manifest in (tmp_path / "remote" / "join-0" / "manifests").iterdir():
        manifest.write_text("")
    again = reader(tmp_path)
    assert again.restore(tmp_path / "back") is None
    assert Snapshotter(again, store).progress.corrupt_count == 1
