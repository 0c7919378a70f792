"""Snapshots of a task: what is saved comes back, damage falls back, others' are refused, crashes leave nothing."""

import hashlib
import logging
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from state.errors import StateError
from state.location import Location
from state.points import on_points
from state.snapshots import Saved, Snapshots
from state.store import Store
from tests.kit.snapshots import Origin, Steps, checkpoint, contents, files_of

URLS = ("plain", "file", "memory")


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = tmp_path / "remote"
    return {"plain": str(place), "file": f"file://{place}", "memory": f"memory://{tmp_path}/remote"}[request.param]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the task in tests that reach into it."""
    return tmp_path / "remote" / "sessions-0"


def opened(url: str | Path, *, origin: Origin | None = None, keep: int = 2) -> Snapshots:
    return Snapshots(Location(str(url)), "sessions-0", origin or Origin(), keep)


def saved(snapshots: Snapshots, folder: Path, *offsets: int) -> list[Saved]:
    found = []
    for offset in offsets:
        found.append(snapshots.save(checkpoint(folder, offset), offset, 1.5))
        snapshots.prune()
    return found


def manifests(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "manifests").iterdir())


def stored(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in (place / "files").rglob("*") if path.is_file())


# --- save and restore -----------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back_in_another_process_s_folder(url: str, tmp_path: Path) -> None:
    assert opened(url).newest() is None
    assert opened(url).restore(tmp_path / "store") is None
    assert not (tmp_path / "store").exists()
    saved(opened(url), tmp_path, 4, 5)
    reader = opened(url)
    assert (found := reader.newest()) is not None
    assert (found.offset, found.created) == (5, 1.5)
    assert reader.restore(tmp_path / "store") == 5
    assert files_of(tmp_path / "store") == contents(5)
    assert reader.damaged == 0


def test_a_real_store_s_checkpoint_comes_back(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write({b"%06d" % number: b"x" * number for number in range(500)})
    store.checkpoint(tmp_path / "copy")
    store.write({b"later": b""})
    store.close()
    opened(url).save(tmp_path / "copy", 7, 0.0)
    assert opened(url).restore(tmp_path / "store", newer_than=6) == 7
    again = Store(tmp_path / "store")
    assert dict(again.scan(b"", b"z")) == {b"%06d" % number: b"x" * number for number in range(500)}
    again.close()


def test_only_what_is_new_is_uploaded_and_a_new_owner_uploads_everything(url: str, tmp_path: Path) -> None:
    owner = opened(url)
    sizes = {offset: {name: len(content) for name, content in contents(offset).items()} for offset in (4, 5)}
    # CURRENT and SAME are alike, and so stored once.
    first, second = saved(owner, tmp_path, 4, 5)
    assert first == Saved(4, sum(sizes[4].values()) - len(b"MANIFEST"), sum(sizes[4].values()))
    assert second == Saved(5, sum(sizes[5][name] for name in ("000007.sst", "000009.log", "MANIFEST-1")), 39)
    (other,) = saved(opened(url), tmp_path, 5)
    assert other.uploaded == sum(sizes[5].values()) - len(b"MANIFEST")


def test_a_finished_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("state.snapshots.sha256_of", digest)
    owner = opened(tmp_path / "remote")
    folder = checkpoint(tmp_path, 4)
    owner.save(folder, 4, 0.0)
    assert sorted(read) == sorted(contents(4))
    read.clear()
    owner.save(folder, 5, 0.0)
    assert sorted(read) == sorted(name for name in contents(4) if not name.endswith(".sst"))


def test_restore_replaces_an_older_store_and_spares_one_as_new(url: str, tmp_path: Path) -> None:
    saved(opened(url), tmp_path, 4)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_text("old")
    assert opened(url).restore(tmp_path / "store", newer_than=4) is None
    assert files_of(tmp_path / "store") == {"old": b"old"}
    assert opened(url).restore(tmp_path / "store", newer_than=3) == 4
    assert files_of(tmp_path / "store") == contents(4)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_two_snapshots_at_one_offset_are_two_and_the_later_comes_back(tmp_path: Path, place: Path) -> None:
    owner = opened(tmp_path / "remote")
    owner.save(checkpoint(tmp_path, 4), 4, 0.0)
    owner.save(checkpoint(tmp_path, 5), 4, 1.0)
    assert len(manifests(place)) == 2
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(5)


# --- damage ---------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, r"000007.sst has 6 bytes, not 7"),
        (flip, r"the SHA-256 of 000007.sst is not the manifest's"),
        (Path.unlink, r"000007.sst is missing"),
    ],
)
def test_a_damaged_file_falls_back_to_the_snapshot_before(
    damage: object, said: str, tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4, 5)
    (table,) = place.glob(f"files/*/*-{hashlib.sha256(b'table 7').hexdigest()}")
    assert callable(damage)
    damage(table)
    reader = opened(tmp_path / "remote")
    with caplog.at_level(logging.WARNING):
        assert reader.restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)
    assert reader.damaged == 1
    (record,) = caplog.records
    assert f"snapshot {manifests(place)[-1]} is damaged: {said}: trying the one before" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\xff"])
def test_a_damaged_manifest_falls_back_to_the_snapshot_before(content: bytes, tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4, 5)
    (place / "manifests" / manifests(place)[-1]).write_bytes(content)
    reader = opened(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") == 4
    assert reader.damaged == 1
    assert (found := reader.newest()) is not None
    assert found.offset == 4


def test_a_manifest_under_another_name_is_damaged(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4)
    (name,) = manifests(place)
    (place / "manifests" / name).rename(place / "manifests" / name.replace("4-", "9-", 1))
    assert opened(tmp_path / "remote").newest() is None


@pytest.mark.parametrize(
    ("old", "new"), [('"CURRENT"', '"../CURRENT"'), ('"CURRENT"', '".."'), ('"sha256": "', '"sha256": "/')]
)
def test_a_manifest_cannot_name_files_elsewhere(old: str, new: str, tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4)
    path = place / "manifests" / manifests(place)[0]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    reader = opened(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") is None
    assert reader.damaged == 1


def test_where_all_are_damaged_nothing_comes_back_and_the_old_store_stays(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4, 5)
    for path in stored(place):
        cut(place / path) if (place / path).stat().st_size else None
    (tmp_path / "store").mkdir()
    reader = opened(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") is None
    assert reader.damaged == 2
    assert files_of(tmp_path / "store") == {}


def test_an_owner_stores_a_damaged_file_again(tmp_path: Path, place: Path) -> None:
    owner = opened(tmp_path / "remote")
    saved(owner, tmp_path, 4)
    digest = hashlib.sha256(b"table 6").hexdigest()
    (table,) = place.glob(f"files/*/*-{digest}")
    cut(table)
    saved(owner, tmp_path, 5)
    reader = opened(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") == 5
    assert (reader.damaged, files_of(tmp_path / "store")) == (0, contents(5))


def test_a_snapshot_pruned_while_it_is_restored_is_not_damaged_and_the_next_one_comes(tmp_path: Path) -> None:
    url = f"memory://{tmp_path}/pruned"
    owner = opened(url, keep=1)
    saved(owner, tmp_path, 4)
    steps: list[str] = []

    def goes_on(step: str) -> None:
        steps.append(step)
        if [step.split()[0] for step in steps] == ["list", "read"]:
            saved(owner, tmp_path, 5)

    reader = Snapshots(Steps(url, goes_on), "sessions-0", Origin())
    assert reader.restore(tmp_path / "store") == 5
    assert (reader.damaged, files_of(tmp_path / "store")) == (0, contents(5))


# --- refused --------------------------------------------------------------------------------------------------------


def test_another_system_s_snapshots_are_refused_with_what_differs(url: str, tmp_path: Path) -> None:
    saved(opened(url), tmp_path, 4)
    other = opened(url, origin=Origin(cluster="c2", config={"window": 300, "new": 1}))
    said = (
        "cluster is 'c2', was 'c1'; config.new is 1, was None; config.window is 300, was 600. "
        "Use another --snapshots, or the settings"
    )
    for call in (
        other.newest,
        lambda: other.restore(tmp_path / "store"),
        lambda: other.restore(tmp_path / "store", newer_than=4),
        lambda: other.save(checkpoint(tmp_path, 9), 9, 0.0),
    ):
        with pytest.raises(StateError) as caught:
            call()
        assert said in str(caught.value)
        assert "sessions-0" in str(caught.value)
    assert (found := opened(url).newest()) is not None
    assert found.offset == 4


def test_another_format_is_refused(tmp_path: Path, place: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4)
    (place / "manifests" / manifests(place)[0]).write_text('{"format": 2, "new": "field"}')
    with pytest.raises(StateError, match=r"is of format 2, this program reads format 1: use the release that wrote it"):
        opened(tmp_path / "remote").restore(tmp_path / "store")


def test_a_checkpoint_that_cannot_be_read_and_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    owner = opened(tmp_path / "remote")
    with pytest.raises(StateError, match=r"gone: the checkpoint cannot be read: No such file"):
        owner.save(tmp_path / "gone", 4, 0.0)
    saved(owner, tmp_path, 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file/store: snapshot \d+-.*\.json cannot be put there: Not a directory"):
        opened(tmp_path / "remote").restore(tmp_path / "file" / "store")


# --- crashes --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing catches it. (What a process does on its way out of one is tidying at most.)"""


def killed_at(point: str, times: int = 1) -> None:
    passed = []

    def hook(name: str) -> None:
        passed.append(name)
        if name == point and passed.count(point) == times:
            on_points(None)
            raise Killed

    on_points(hook)


@pytest.mark.parametrize("times", [1, 3])
def test_a_crash_in_a_restore_leaves_the_old_store_and_the_next_start_restores(times: int, tmp_path: Path) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4)
    (tmp_path / "store").mkdir()
    killed_at("restore", times)
    with pytest.raises(Killed):
        opened(tmp_path / "remote").restore(tmp_path / "store")
    assert files_of(tmp_path / "store") == {}
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)


def test_a_crash_between_the_two_renames_loses_neither_store_nor_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(opened(tmp_path / "remote"), tmp_path, 4)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_text("old")
    rename = Path.rename

    def only_the_first(path: Path, target: Path) -> Path:
        if target.name == "store":
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", only_the_first)
        with pytest.raises(Killed):
            opened(tmp_path / "remote").restore(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert opened(tmp_path / "elsewhere").restore(tmp_path / "store") is None
    assert files_of(tmp_path / "store") == {"old": b"old"}
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_a_killed_restore_leaves_is_removed_by_the_next_even_if_there_is_nothing_newer(tmp_path: Path) -> None:
    for left in ("store", ".store.restoring", ".store.replaced"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "000001.sst").write_text(left)
    assert opened(tmp_path / "remote").restore(tmp_path / "store") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]
    assert files_of(tmp_path / "store") == {"000001.sst": b"store"}


def test_a_crash_before_the_manifest_is_no_snapshot_and_the_same_owner_uses_the_files(tmp_path: Path) -> None:
    owner = opened(tmp_path / "remote")
    killed_at("snapshot")
    with pytest.raises(Killed):
        owner.save(checkpoint(tmp_path, 4), 4, 0.0)
    assert opened(tmp_path / "remote").newest() is None
    assert owner.save(checkpoint(tmp_path, 4), 4, 0.0).uploaded == 0
    assert opened(tmp_path / "remote").restore(tmp_path / "store") == 4


def test_stop_ends_a_save_without_a_snapshot(tmp_path: Path) -> None:
    owner = opened(tmp_path / "remote")
    owner.stop()
    with pytest.raises(StateError, match="snapshot at offset 4 given up: the task closes"):
        owner.save(checkpoint(tmp_path, 4), 4, 0.0)
    assert opened(tmp_path / "remote").newest() is None


# --- pruning --------------------------------------------------------------------------------------------------------


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
