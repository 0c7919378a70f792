"""The doctor's checks of what lies on this machine, held against places in the log that are given by hand."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from kafka import TopicPartition

from prectr.model.training import checkpoint_files
from prectr.model.training.trainer import Trainer
from prectr.ops.doctor.broker.groups import GroupOffsets, PartitionOffsets, check_settings
from prectr.ops.doctor.broker.topic_checks import SnapshotTarget as Kept
from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host import disk
from prectr.ops.doctor.host.checkpoint import check_checkpoint
from prectr.ops.doctor.host.lock_holder import lock_holder
from prectr.ops.doctor.host.snapshots import check_snapshots
from prectr.ops.doctor.host.stores import check_stores
from prectr.ops.doctor.host.versions import check_versions
from prectr.ops.training.failure_marker import write_failure
from prectr.state.errors import TrainingError
from prectr.state.identity import StoreIdentity
from prectr.state.lock import FolderLock
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.state.snapshots.task_snapshots import TaskSnapshots
from prectr.state.store import Store
from prectr.stream.config import PipelineConfig
from prectr.stream.join.state import META_KEY, JoinMeta
from prectr.stream.kafka.io.example_reader import ReaderState
from prectr.stream.kafka.io.sink_runner import LiveCheckpoint
from prectr.stream.kafka.tasks.task_context import settings_digest
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata
from prectr.stream.ordering.watermark import initial_watermark
from prectr.stream.replay.run_checkpoint import CheckpointWriter
from prectr.stream.sinks.run_digest import RunDigest
from tests.faults.tmpfs import TmpfsVolume
from tests.kit.models.examples import small_config

TOPIC_ID = "topic-1"
EVENTS = TopicPartition("search-events", 0)


def commits(first: int = 0, end: int = 100, committed: int | None = 50, began: int = 0) -> GroupOffsets:
    """One partition a topic; `committed` by join, nothing by aggregate."""
    said = None if committed is None else (committed, CommitMetadata(TOPIC_ID, start_offset=began))
    places = {
        "join": [PartitionOffsets(EVENTS, first, end, said)],
        "aggregate": [PartitionOffsets(TopicPartition("joined-pages", 0), 0, 0, None)],
    }
    return GroupOffsets("cluster-1", {"join": TOPIC_ID, "aggregate": "topic-2"}, places, [(first, end)])


def identity(topic_id: str = TOPIC_ID) -> StoreIdentity:
    return StoreIdentity("cluster-1", "search-events", topic_id, "join", 0, {})


def store(state_dir: Path, position: int, owner: StoreIdentity | None = None) -> Path:
    folder = state_dir / "join-0"
    made = Store(folder)
    made.write(
        {
            b"i": msgspec.msgpack.encode(owner or identity()),
            META_KEY: msgspec.msgpack.encode(JoinMeta(next_offset=position)),
        }
    )
    made.close()
    return folder


def state(state_dir: Path, found: GroupOffsets, snapshots: bool = False) -> Finding:
    (finding,) = check_stores(state_dir, found, snapshots)
    return finding


def written(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("position", "seen"), [(50, "at the commit"), (20, "30 records behind the commit")])
def test_a_state_at_or_before_the_commit_is_fine_and_untouched(tmp_path: Path, position: int, seen: str) -> None:
    store(tmp_path, position)
    before = written(tmp_path)
    finding = state(tmp_path, commits())
    assert finding.severity == "ok"
    assert seen in finding.observed
    assert written(tmp_path) == before


@pytest.mark.parametrize(
    ("position", "topic_id", "found", "seen", "advice"),
    [
        (60, TOPIC_ID, commits(), "ahead of the commit at 50", "--group-prefix"),
        (20, "older", commits(), "an earlier search-events, which was deleted and recreated", "start over"),
        (20, TOPIC_ID, commits(committed=None), "has committed nothing", "prectr state restore-offsets"),
        (20, TOPIC_ID, commits(first=30), "the log starts at 30", "restore a newer state"),
    ],
)
def test_a_state_that_cannot_be_used(
    tmp_path: Path, position: int, topic_id: str, found: GroupOffsets, seen: str, advice: str
) -> None:
    store(tmp_path, position, identity(topic_id))
    finding = state(tmp_path, found)
    assert finding.severity == "error"
    assert seen in finding.observed
    assert advice in finding.advice


def test_a_state_of_another_cluster_is_of_another_system(tmp_path: Path) -> None:
    store(tmp_path, 20, StoreIdentity("cluster-2", "search-events", TOPIC_ID, "join", 0, {}))
    finding = state(tmp_path, commits())
    assert finding.severity == "error"
    assert "cluster-2, not to this system" in finding.observed
    assert "--state-dir" in finding.advice


def test_a_state_that_began_with_the_log_is_not_lost_to_retention(tmp_path: Path) -> None:
    store(tmp_path, 0)
    assert state(tmp_path, commits(first=30, began=30)).severity == "ok"


def test_a_corrupt_state_is_reported_by_name(tmp_path: Path) -> None:
    folder = store(tmp_path, 50)
    (folder / "CURRENT").write_text("nonsense\n")
    finding = state(tmp_path, commits(), snapshots=True)
    assert finding.severity == "error"
    assert str(folder) in finding.observed
    assert "rebuilt from its snapshot" in finding.advice


def test_a_state_in_use_is_left_alone(tmp_path: Path) -> None:
    folder = store(tmp_path, 60)
    lock = FolderLock(tmp_path)
    finding = state(tmp_path, commits())
    assert finding.severity == "ok"
    assert f"in use by running process {os.getpid()}" in finding.observed
    lock.release()
    assert state(tmp_path, commits()).severity == "error", "ahead of the commit, now that it can be looked at"
    shutil.rmtree(folder)


def test_the_states_of_all_processes_of_a_run_are_found(tmp_path: Path) -> None:
    store(tmp_path / "stream-1", 50)
    store(tmp_path / "stream-2", 50)
    assert [finding.observed.partition(":")[0] for finding in check_stores(tmp_path, commits(), False)] == [
        str(tmp_path / "stream-1"),
        str(tmp_path / "stream-2"),
    ]


def test_the_lock_holder_is_found_without_locking(tmp_path: Path) -> None:
    assert lock_holder(tmp_path / ".lock") is None
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from prectr.state.lock import FolderLock\n"
            "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()",
            tmp_path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert lock_holder(tmp_path / ".lock") == child.pid
    child.communicate()
    assert lock_holder(tmp_path / ".lock") is None
    FolderLock(tmp_path).release()


def snapshot(url: Path, position: int, created: float, owner: StoreIdentity | None = None) -> None:
    folder = url.parent / f"made-{position}"
    made = Store(store(folder, position, owner))
    made.checkpoint(folder / "checkpoint")
    made.close()
    TaskSnapshots(SnapshotStorage(str(url)), "join-0", owner or identity()).save(
        folder / "checkpoint", position, created
    )


def kept(url: Path, found: GroupOffsets) -> Finding:
    (finding,) = check_snapshots(Kept(str(url), 60.0), found)
    return finding


def test_a_fresh_snapshot_is_well_and_an_old_one_only_where_nothing_came_since(tmp_path: Path) -> None:
    url, now = tmp_path / "snapshots", time.time()
    assert "there is none" in kept(url, commits()).observed
    snapshot(url, 40, now - 3600)
    old = kept(url, commits())
    assert old.severity == "warning"
    assert old.observed == "60 min old, and the commit has moved on since"
    assert kept(url, commits(committed=40)).severity == "ok"
    snapshot(url, 50, now)
    assert kept(url, commits()).severity == "ok"


def two_partitions() -> GroupOffsets:
    found = commits()
    second = TopicPartition("search-events", 1)
    found.partitions["join"].append(PartitionOffsets(second, 0, 100, (50, CommitMetadata(TOPIC_ID))))
    return found


def test_missing_snapshots_are_one_line_and_no_warning_right_after_a_start(tmp_path: Path) -> None:
    url, state_dir = tmp_path / "snapshots", tmp_path / "state"
    (finding,) = check_snapshots(Kept(str(url), 60.0), two_partitions(), state_dir)
    assert (finding.severity, finding.name) == ("warning", "snapshot join-0, join-1")
    lock = FolderLock(state_dir / "stream-1")
    (young,) = check_snapshots(Kept(str(url), 1e9), two_partitions(), state_dir)
    assert young.severity == "ok"
    assert young.observed.startswith("there is none; the stream worker started ")
    (old,) = check_snapshots(Kept(str(url), 0.0), two_partitions(), state_dir)
    assert old.severity == "warning"
    lock.release()


def test_a_corrupt_snapshot_and_one_of_another_system(tmp_path: Path) -> None:
    url, now = tmp_path / "snapshots", time.time()
    snapshot(url, 40, now)
    snapshot(url, 50, now)
    newest = max((url / "join-0" / "manifests").iterdir())
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    assert "the newest is corrupt" in kept(url, commits()).observed
    newest.write_bytes(whole)
    shutil.rmtree(url / "join-0" / "files")
    assert kept(url, commits()).severity == "error"
    other = tmp_path / "other" / "snapshots"
    snapshot(other, 40, now, identity("older"))
    assert "another system" in kept(other, commits()).observed


def test_a_snapshot_older_than_the_log_start(tmp_path: Path) -> None:
    url = tmp_path / "snapshots"
    snapshot(url, 20, time.time())
    finding = kept(url, commits(first=30))
    assert finding.severity == "error"
    assert "the log starts at 30" in finding.observed


def make_checkpoint(run_dir: Path, offset: int) -> Path:
    writer = CheckpointWriter(run_dir / "checkpoints")
    reader = ReaderState(offsets=[offset], sequences=[0], merged_watermark=initial_watermark(1), buffered=[[]])
    (writer.staging / "reader.msgpack").write_bytes(msgspec.msgpack.encode(reader))
    sink = writer.staging / "sinks" / "lr"
    sink.mkdir(parents=True)
    Trainer(small_config(model="lr")).save(sink)
    return writer.commit(LiveCheckpoint(config={}, topic="training-examples", digest=RunDigest().state(), seconds=1.0))


def newest(run_dir: Path, found: GroupOffsets | None) -> Finding:
    *_, finding = check_checkpoint(run_dir, found)
    return finding


def test_the_newest_checkpoint_is_read_to_its_last_byte(tmp_path: Path) -> None:
    assert "none yet" in newest(tmp_path, None).observed
    folder = make_checkpoint(tmp_path, 50)
    assert newest(tmp_path, commits()).severity == "ok"
    file = folder / "sinks" / "lr" / checkpoint_files.PROGRESS
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    finding = newest(tmp_path, commits())
    assert finding.severity == "error"
    assert "SHA-256" in finding.observed
    assert f"delete {folder}" in finding.advice


@pytest.mark.parametrize("found", [commits(first=60), commits(end=40)])
def test_a_checkpoint_whose_next_example_is_gone(tmp_path: Path, found: GroupOffsets) -> None:
    make_checkpoint(tmp_path, 50)
    finding = newest(tmp_path, found)
    assert finding.severity == "error"
    assert "next offset of partition 0 is 50" in finding.observed


@pytest.mark.parametrize(("found", "level"), [(commits(end=40), "ok"), (commits(first=60), "error")])
def test_a_running_trainer_may_have_read_past_the_end_offset_fetched_before(
    tmp_path: Path, found: GroupOffsets, level: str
) -> None:
    make_checkpoint(tmp_path, 50)
    lock = FolderLock(tmp_path)
    assert newest(tmp_path, found).severity == level
    lock.release()


def test_a_trainer_that_stopped_at_a_loss_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_failure(tmp_path, TrainingError("the gradient of table ids is inf"))
    first, *_ = check_checkpoint(tmp_path, None)
    assert first.severity == "error"
    assert "the gradient of table ids is inf" in first.observed


@pytest.mark.parametrize(
    ("config", "severity"),
    [(PipelineConfig(), "ok"), (PipelineConfig(attribution_window=600_000), "warning")],
)
def test_settings_that_differ_from_those_of_the_commits_are_told(config: PipelineConfig, severity: str) -> None:
    metadata = CommitMetadata(TOPIC_ID, settings=settings_digest(PipelineConfig(partitions=1)))
    found = commits()
    found.partitions["join"][0] = PartitionOffsets(EVENTS, 0, 100, (50, metadata))
    (finding,) = check_settings(config, found)
    assert finding.severity == severity


def test_without_given_settings_there_is_nothing_to_compare() -> None:
    found = commits()
    found.partitions["join"][0] = PartitionOffsets(EVENTS, 0, 100, (50, CommitMetadata(TOPIC_ID, settings="other")))
    (finding,) = check_settings(PipelineConfig(), found, is_given=False)
    assert finding.severity == "ok"
    assert "--config" in finding.observed


def test_without_commits_there_are_no_settings_to_differ_from() -> None:
    assert list(check_settings(PipelineConfig(), commits(committed=None))) == []


def test_whether_the_trainer_runs(tmp_path: Path) -> None:
    first, *_ = check_checkpoint(tmp_path, None)
    assert first.severity == "warning"
    lock = FolderLock(tmp_path)
    first, *_ = check_checkpoint(tmp_path, None)
    lock.release()
    assert first.severity == "ok"
    assert str(os.getpid()) in first.observed


@pytest.mark.parametrize(
    ("free", "files", "level"),
    [(10 << 30, 1 << 20, "ok"), (1 << 30, 1 << 20, "warning"), (1 << 20, 1 << 20, "error"), (10 << 30, 10, "error")],
)
def test_room_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, files: int, level: str) -> None:
    class Disk:
        f_bavail, f_frsize, f_favail, f_files = free // 4096, 4096, files, 1 << 21

    monkeypatch.setattr(disk.os, "statvfs", lambda path: Disk)
    found = list(disk.check_disk(tmp_path / "not" / "yet", tmp_path, f"file://{tmp_path}/snapshots"))
    assert [finding.severity for finding in found] == [level] * 3
    assert not (tmp_path / "not").exists()


def test_a_folder_of_another_mount_namespace_is_checked_there(tmp_path: Path) -> None:
    """As of a container, by a path through /proc/PID/root."""
    try:
        volume = TmpfsVolume(tmp_path / "volume")
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        store(volume.path / "state", 20)
        (finding,) = disk.check_disk(volume.path / "state", None, None)
        assert finding.severity == "error"
        assert ": 0.1 GiB free" in finding.observed
        assert state(volume.path / "state", commits()).severity == "ok"
    finally:
        volume.close()


def test_remote_snapshot_storage_is_not_checked() -> None:
    assert list(disk.check_disk(None, None, "s3://bucket/snapshots")) == []


def test_an_old_client_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.severity for finding in check_versions()] == ["ok"]
    monkeypatch.setattr(
        "prectr.ops.doctor.host.versions._version", lambda name: "2.3.1" if name == "kafka-python" else "9.9"
    )
    (finding,) = check_versions()
    assert finding.severity == "error"
    assert "kafka-python 2.3.1" in finding.observed
    assert json.loads(msgspec.json.encode(finding))["advice"]
