"""Pruning: which snapshots are kept, and which files are deleted with the others."""

import hashlib
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from prectr.state.failpoints import Failpoint
from tests.kit.stages.snapshots import (
    SimulatedKill,
    checkpoint,
    contents,
    corrupt_last_byte,
    files_of,
    kill_at_failpoint,
    manifests,
    open_snapshots,
    save_snapshots,
    stored_files,
    truncate_last_byte,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the task in the storage."""
    return tmp_path / "remote" / "join-0"


def test_the_newest_two_stay_with_their_files_and_nothing_else(tmp_path: Path, place: Path) -> None:
    owner = open_snapshots(tmp_path / "remote")
    save_snapshots(owner, tmp_path, 1, 2, 3, 4, 5)
    assert [int(name[:20]) for name in manifests(place)] == [4, 5]
    wanted = {hashlib.sha256(content).hexdigest() for offset in (4, 5) for content in contents(offset).values()}
    assert {path.rpartition("-")[2] for path in stored_files(place)} == wanted
    assert len(stored_files(place)) == len(wanted)


def test_pruning_before_the_first_save_does_nothing(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4)
    before = stored_files(place)
    open_snapshots(tmp_path / "remote", keep=1).prune()
    assert (len(manifests(place)), stored_files(place)) == (1, before)


def test_a_new_writers_second_snapshot_removes_the_old_writers_files(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 1, 2)
    new = open_snapshots(tmp_path / "remote")
    save_snapshots(new, tmp_path, 3)
    assert [int(name[:20]) for name in manifests(place)] == [2, 3]
    save_snapshots(new, tmp_path, 4)
    assert [int(name[:20]) for name in manifests(place)] == [3, 4]
    assert len(list((place / "files").iterdir())) == 1


def test_a_writer_whose_snapshots_were_pruned_uploads_everything_again(tmp_path: Path) -> None:
    old = open_snapshots(tmp_path / "remote")
    save_snapshots(old, tmp_path, 1)
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 2, 3)
    (again,) = save_snapshots(old, tmp_path, 4)
    assert again.uploaded_bytes == again.total_bytes - len(b"MANIFEST")
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)


@pytest.mark.parametrize("damage", [truncate_last_byte, corrupt_last_byte, Path.unlink])
def test_a_corrupt_snapshot_does_not_count_as_kept(damage: object, tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    (table,) = place.glob(f"files/*/*-{hashlib.sha256(b'table 7').hexdigest()}")
    assert callable(damage)
    damage(table)
    new = open_snapshots(tmp_path / "remote")
    assert new.restore(tmp_path / "store") == 4
    save_snapshots(new, tmp_path, 6)
    assert [int(name[:20]) for name in manifests(place)] == [4, 5, 6]
    save_snapshots(new, tmp_path, 7)
    assert [int(name[:20]) for name in manifests(place)] == [6, 7]


def test_a_writer_that_fell_back_keeps_what_it_saves_behind_corrupt_snapshots(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 7, 8)
    for path in stored_files(place):
        if (place / path).stat().st_size:
            corrupt_last_byte(place / path)
    new = open_snapshots(tmp_path / "remote")
    assert new.restore(tmp_path / "store") is None
    save_snapshots(new, tmp_path, 1)
    save_snapshots(new, tmp_path, 2)
    assert [int(name[:20]) for name in manifests(place)] == [1, 2, 7, 8]
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 2


def test_files_of_a_writer_with_an_unreadable_manifest_stay(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 9)
    (name,) = manifests(place)
    whole = (place / "manifests" / name).read_bytes()
    theirs = stored_files(place)
    (place / "manifests" / name).write_bytes(whole[:100])
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 1, 2, 3)
    assert set(theirs) <= set(stored_files(place))
    (place / "manifests" / name).write_bytes(whole)
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 9


def test_unreferenced_files_of_another_writer_are_deleted_after_a_day(tmp_path: Path) -> None:
    url, root = f"memory://{tmp_path}/left", f"{tmp_path}/left/join-0"
    kill_at_failpoint(Failpoint.SNAPSHOT)
    with pytest.raises(SimulatedKill):
        open_snapshots(url).save(checkpoint(tmp_path, 1), 1, 0.0)
    store = MemoryFileSystem.store
    left = [path for path in store if path.startswith(root)]
    owner = open_snapshots(url)
    save_snapshots(owner, tmp_path, 2, 3)
    assert left
    assert set(left) <= store.keys()
    for path in left:
        store[path].modified = store[path].modified.replace(year=2020)
    save_snapshots(owner, tmp_path, 4)
    assert not set(left) & store.keys()
    assert open_snapshots(url).restore(tmp_path / "store") == 4
