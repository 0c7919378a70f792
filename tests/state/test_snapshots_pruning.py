"""Snapshots of a task: which of them stay, and which files go with those that do not."""

import hashlib
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.kit.stages.snapshots import (
    Killed,
    checkpoint,
    contents,
    cut,
    files_of,
    flip,
    killed_at,
    manifests,
    opened,
    saved,
    stored,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the task in tests that reach into it."""
    return tmp_path / "remote" / "sessions-0"


def test_the_newest_two_stay_with_their_files_and_nothing_else(tmp_path: Path, place: Path) -> None:
    owner = opened(tmp_path / "remote")
    saved(owner, tmp_path, 1, 2, 3, 4, 5)
    assert [int(name[:20]) for name in manifests(place)] == [4, 5]
    wanted = {hashlib.sha256(content).hexdigest() for offset in (4, 5) for content in contents(offset).values()}
    assert {path.rpartition("-")[2] for path in stored(place)} == wanted
    assert len(stored(place)) == len(wanted)


def test_pruning_before_the_first_save_does_nothing(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4)
    before = stored(place)
    opened(tmp_path / "remote", keep=1).prune()
    assert (len(manifests(place)), stored(place)) == (1, before)


def test_a_new_owner_s_second_snapshot_removes_the_old_owner_s_files(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 1, 2)
    new = opened(tmp_path / "remote")
    saved(new, tmp_path, 3)
    assert [int(name[:20]) for name in manifests(place)] == [2, 3]
    saved(new, tmp_path, 4)
    assert [int(name[:20]) for name in manifests(place)] == [3, 4]
    assert len(list((place / "files").iterdir())) == 1


def test_an_owner_whose_snapshots_were_pruned_stores_everything_again(tmp_path: Path) -> None:
    old = opened(tmp_path / "remote")
    saved(old, tmp_path, 1)
    saved(opened(tmp_path / "remote"), tmp_path, 2, 3)
    (again,) = saved(old, tmp_path, 4)
    assert again.uploaded == again.total - len(b"MANIFEST")
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_snapshot_does_not_count_as_one_that_is_kept(damage: object, tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4, 5)
    (table,) = place.glob(f"files/*/*-{hashlib.sha256(b'table 7').hexdigest()}")
    assert callable(damage)
    damage(table)
    new = opened(tmp_path / "remote")
    assert new.restore(tmp_path / "store") == 4
    saved(new, tmp_path, 6)
    assert [int(name[:20]) for name in manifests(place)] == [4, 5, 6]
    saved(new, tmp_path, 7)
    assert [int(name[:20]) for name in manifests(place)] == [6, 7]


def test_an_owner_that_fell_back_keeps_what_it_saves_behind_damaged_ones(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 7, 8)
    for path in stored(place):
        if (place / path).stat().st_size:
            flip(place / path)
    new = opened(tmp_path / "remote")
    assert new.restore(tmp_path / "store") is None
    saved(new, tmp_path, 1)
    saved(new, tmp_path, 2)
    assert [int(name[:20]) for name in manifests(place)] == [1, 2, 7, 8]
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 2


def test_files_of_an_owner_whose_manifest_cannot_be_read_stay(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 9)
    (name,) = manifests(place)
    whole = (place / "manifests" / name).read_bytes()
    theirs = stored(place)
    (place / "manifests" / name).write_bytes(whole[:100])
    saved(opened(tmp_path / "remote"), tmp_path, 1, 2, 3)
    assert set(theirs) <= set(stored(place))
    (place / "manifests" / name).write_bytes(whole)
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 9


def test_what_another_owner_left_unnamed_goes_after_a_day(tmp_path: Path) -> None:
    url, root = f"memory://{tmp_path}/left", f"{tmp_path}/left/sessions-0"
    killed_at("snapshot")
    with pytest.raises(Killed):
        opened(url).save(checkpoint(tmp_path, 1), 1, 0.0)
    store = MemoryFileSystem.store
    left = [path for path in store if path.startswith(root)]
    owner = opened(url)
    saved(owner, tmp_path, 2, 3)
    assert left
    assert set(left) <= store.keys()
    for path in left:
        store[path].modified = store[path].modified.replace(year=2020)
    saved(owner, tmp_path, 4)
    assert not set(left) & store.keys()
    assert opened(url).restore(tmp_path / "store") == 4
