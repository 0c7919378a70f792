"""Snapshots of a task: restored as saved, fallback from corruption, rejection of another system's, crashes."""

import hashlib
import logging
from pathlib import Path

import pytest

from prectr.state.errors import StateError
from prectr.state.failpoints import Failpoint
from prectr.state.snapshots.task_snapshots import SnapshotResult, TaskSnapshots
from prectr.state.store import Store
from tests.kit.stages.snapshots import (
    HookedStorage,
    Origin,
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

URLS = ("plain", "file", "memory")


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = tmp_path / "remote"
    return {"plain": str(place), "file": f"file://{place}", "memory": f"memory://{tmp_path}/remote"}[request.param]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the task in the storage."""
    return tmp_path / "remote" / "join-0"


# --- save and restore -----------------------------------------------------------------------------------------------


def test_a_snapshot_is_restored_in_another_process_s_folder(url: str, tmp_path: Path) -> None:
    assert open_snapshots(url).newest() is None
    assert open_snapshots(url).restore(tmp_path / "store") is None
    assert not (tmp_path / "store").exists()
    save_snapshots(open_snapshots(url), tmp_path, 4, 5)
    reader = open_snapshots(url)
    assert (found := reader.newest()) is not None
    assert (found.offset, found.created_at) == (5, 1.5)
    assert reader.restore(tmp_path / "store") == 5
    assert files_of(tmp_path / "store") == contents(5)
    assert reader.corrupt_count == 0


def test_a_real_store_s_checkpoint_is_restored(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write({b"%06d" % number: b"x" * number for number in range(500)})
    store.checkpoint(tmp_path / "copy")
    store.write({b"later": b""})
    store.close()
    open_snapshots(url).save(tmp_path / "copy", 7, 0.0)
    assert open_snapshots(url).restore(tmp_path / "store", newer_than=6) == 7
    again = Store(tmp_path / "store")
    assert dict(again.scan(b"", b"z")) == {b"%06d" % number: b"x" * number for number in range(500)}
    again.close()


def test_only_new_files_are_uploaded_and_a_new_writer_epoch_uploads_everything(url: str, tmp_path: Path) -> None:
    owner = open_snapshots(url)
    sizes = {offset: {name: len(content) for name, content in contents(offset).items()} for offset in (4, 5)}
    # CURRENT and SAME have equal content and are stored once.
    first, second = save_snapshots(owner, tmp_path, 4, 5)
    assert first == SnapshotResult(4, sum(sizes[4].values()) - len(b"MANIFEST"), sum(sizes[4].values()))
    assert second == SnapshotResult(5, sum(sizes[5][name] for name in ("000007.sst", "000009.log", "MANIFEST-1")), 39)
    (other,) = save_snapshots(open_snapshots(url), tmp_path, 5)
    assert other.uploaded_bytes == sum(sizes[5].values()) - len(b"MANIFEST")


def test_a_finished_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("prectr.state.snapshots.task_snapshots.sha256_of", digest)
    owner = open_snapshots(tmp_path / "remote")
    folder = checkpoint(tmp_path, 4)
    owner.save(folder, 4, 0.0)
    assert sorted(read) == sorted(contents(4))
    read.clear()
    owner.save(folder, 5, 0.0)
    assert sorted(read) == sorted(name for name in contents(4) if not name.endswith(".sst"))


def test_restore_replaces_an_older_store_and_spares_one_as_new(url: str, tmp_path: Path) -> None:
    save_snapshots(open_snapshots(url), tmp_path, 4)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_text("old")
    assert open_snapshots(url).restore(tmp_path / "store", newer_than=4) is None
    assert files_of(tmp_path / "store") == {"old": b"old"}
    assert open_snapshots(url).restore(tmp_path / "store", newer_than=3) == 4
    assert files_of(tmp_path / "store") == contents(4)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_of_two_snapshots_at_one_offset_the_later_is_restored(tmp_path: Path, place: Path) -> None:
    owner = open_snapshots(tmp_path / "remote")
    owner.save(checkpoint(tmp_path, 4), 4, 0.0)
    owner.save(checkpoint(tmp_path, 5), 4, 1.0)
    assert len(manifests(place)) == 2
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(5)


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate_last_byte, r"000007.sst has 6 bytes, not 7"),
        (corrupt_last_byte, r"the SHA-256 of 000007.sst is not the manifest's"),
        (Path.unlink, r"000007.sst is missing"),
    ],
)
def test_a_corrupt_file_falls_back_to_the_previous_snapshot(
    damage: object, said: str, tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    (table,) = place.glob(f"files/*/*-{hashlib.sha256(b'table 7').hexdigest()}")
    assert callable(damage)
    damage(table)
    reader = open_snapshots(tmp_path / "remote")
    with caplog.at_level(logging.WARNING):
        assert reader.restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)
    assert reader.corrupt_count == 1
    (record,) = caplog.records
    assert f"snapshot {manifests(place)[-1]} is corrupt: {said}: trying the previous one" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\xff"])
def test_a_corrupt_manifest_falls_back_to_the_previous_snapshot(content: bytes, tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    (place / "manifests" / manifests(place)[-1]).write_bytes(content)
    reader = open_snapshots(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") == 4
    assert reader.corrupt_count == 1
    assert (found := reader.newest()) is not None
    assert found.offset == 4


def test_a_manifest_under_another_name_is_corrupt(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4)
    (name,) = manifests(place)
    (place / "manifests" / name).rename(place / "manifests" / name.replace("4-", "9-", 1))
    assert open_snapshots(tmp_path / "remote").newest() is None


@pytest.mark.parametrize(
    ("old", "new"), [('"CURRENT"', '"../CURRENT"'), ('"CURRENT"', '".."'), ('"sha256": "', '"sha256": "/')]
)
def test_a_manifest_cannot_name_files_elsewhere(old: str, new: str, tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4)
    path = place / "manifests" / manifests(place)[0]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    reader = open_snapshots(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") is None
    assert reader.corrupt_count == 1


def test_where_all_are_corrupt_nothing_is_restored_and_the_old_store_stays(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    for path in stored_files(place):
        truncate_last_byte(place / path) if (place / path).stat().st_size else None
    (tmp_path / "store").mkdir()
    reader = open_snapshots(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") is None
    assert reader.corrupt_count == 2
    assert files_of(tmp_path / "store") == {}


def test_a_writer_uploads_a_corrupt_file_again(tmp_path: Path, place: Path) -> None:
    owner = open_snapshots(tmp_path / "remote")
    save_snapshots(owner, tmp_path, 4)
    digest = hashlib.sha256(b"table 6").hexdigest()
    (table,) = place.glob(f"files/*/*-{digest}")
    truncate_last_byte(table)
    save_snapshots(owner, tmp_path, 5)
    reader = open_snapshots(tmp_path / "remote")
    assert reader.restore(tmp_path / "store") == 5
    assert (reader.corrupt_count, files_of(tmp_path / "store")) == (0, contents(5))


def test_a_snapshot_pruned_during_restore_is_not_corrupt_and_the_next_one_is_restored(tmp_path: Path) -> None:
    url = f"memory://{tmp_path}/pruned"
    owner = open_snapshots(url, keep=1)
    save_snapshots(owner, tmp_path, 4)
    steps: list[str] = []

    def goes_on(step: str) -> None:
        steps.append(step)
        if [step.split()[0] for step in steps] == ["list", "read"]:
            save_snapshots(owner, tmp_path, 5)

    reader = TaskSnapshots(HookedStorage(url, goes_on), "join-0", Origin())
    assert reader.restore(tmp_path / "store") == 5
    assert (reader.corrupt_count, files_of(tmp_path / "store")) == (0, contents(5))


# --- refused --------------------------------------------------------------------------------------------------------


def test_snapshots_of_another_system_are_rejected_with_the_differences(url: str, tmp_path: Path) -> None:
    save_snapshots(open_snapshots(url), tmp_path, 4)
    other = open_snapshots(url, origin=Origin(cluster="c2", config={"window": 300, "new": 1}))
    message = (
        "cluster is c2, was c1; config.new is 1, was not set; config.window is 300, was 600: "
        "use the settings that it was made with, or use another snapshot location"
    )
    for call in (
        other.newest,
        lambda: other.restore(tmp_path / "store"),
        lambda: other.restore(tmp_path / "store", newer_than=4),
        lambda: other.save(checkpoint(tmp_path, 9), 9, 0.0),
    ):
        with pytest.raises(StateError) as caught:
            call()
        assert message in str(caught.value)
        assert "join-0" in str(caught.value)
    assert (found := open_snapshots(url).newest()) is not None
    assert found.offset == 4


def test_another_format_is_rejected(tmp_path: Path, place: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4)
    (place / "manifests" / manifests(place)[0]).write_text('{"format": 2, "new": "field"}')
    with pytest.raises(StateError, match=r"is of format 2, this program reads format 1: use the release that wrote it"):
        open_snapshots(tmp_path / "remote").restore(tmp_path / "store")


def test_a_checkpoint_that_cannot_be_read_and_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    owner = open_snapshots(tmp_path / "remote")
    with pytest.raises(StateError, match=r"gone: the checkpoint cannot be read: No such file"):
        owner.save(tmp_path / "gone", 4, 0.0)
    save_snapshots(owner, tmp_path, 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file/store: snapshot \d+-.*\.json cannot be restored there: Not a dir"):
        open_snapshots(tmp_path / "remote").restore(tmp_path / "file" / "store")


# --- crashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_a_crash_in_a_restore_leaves_the_old_store_and_the_next_start_restores(times: int, tmp_path: Path) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4)
    (tmp_path / "store").mkdir()
    kill_at_failpoint(Failpoint.RESTORE, times)
    with pytest.raises(SimulatedKill):
        open_snapshots(tmp_path / "remote").restore(tmp_path / "store")
    assert files_of(tmp_path / "store") == {}
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)


def test_a_crash_between_the_two_renames_loses_neither_store_nor_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_text("old")
    rename = Path.rename

    def only_the_first(path: Path, target: Path) -> Path:
        if target.name == "store":
            raise SimulatedKill
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", only_the_first)
        with pytest.raises(SimulatedKill):
            open_snapshots(tmp_path / "remote").restore(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert open_snapshots(tmp_path / "elsewhere").restore(tmp_path / "store") is None
    assert files_of(tmp_path / "store") == {"old": b"old"}
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_a_killed_restore_leaves_is_removed_by_the_next_even_if_there_is_nothing_newer(tmp_path: Path) -> None:
    for left in ("store", ".store.restoring", ".store.replaced"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "000001.sst").write_text(left)
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]
    assert files_of(tmp_path / "store") == {"000001.sst": b"store"}


def test_a_crash_before_the_manifest_is_no_snapshot_and_the_same_writer_reuses_the_files(tmp_path: Path) -> None:
    owner = open_snapshots(tmp_path / "remote")
    kill_at_failpoint(Failpoint.SNAPSHOT)
    with pytest.raises(SimulatedKill):
        owner.save(checkpoint(tmp_path, 4), 4, 0.0)
    assert open_snapshots(tmp_path / "remote").newest() is None
    assert owner.save(checkpoint(tmp_path, 4), 4, 0.0).uploaded_bytes == 0
    assert open_snapshots(tmp_path / "remote").restore(tmp_path / "store") == 4


def test_stop_ends_a_save_without_a_snapshot(tmp_path: Path) -> None:
    owner = open_snapshots(tmp_path / "remote")
    owner.stop()
    with pytest.raises(StateError, match="snapshot at offset 4 cancelled: the task is closing"):
        owner.save(checkpoint(tmp_path, 4), 4, 0.0)
    assert open_snapshots(tmp_path / "remote").newest() is None
