"""The snapshots of the state: whether there is one of every task, how old, and whether its files are there."""

import time
from collections.abc import Iterator
from typing import Final

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.groups import GroupOffsets, PartitionOffsets
from prectr.ops.doctor.topic_checks import SnapshotTarget
from prectr.state.errors import PrectrError
from prectr.state.manifest import SnapshotManifest, decode_manifest, is_manifest_name
from prectr.state.snapshot_storage import SnapshotStorage

_MAX_AGE_INTERVALS: Final = 5
"""Intervals after which a snapshot that is behind the commit is called old."""


def check_snapshots(snapshots: SnapshotTarget | None, offsets: GroupOffsets) -> Iterator[Finding]:
    """Look at the newest manifest of every task that has read something; the files are not read."""
    if snapshots is None:
        return
    try:
        storage = SnapshotStorage(snapshots.url)
    except PrectrError as error:
        yield Finding("snapshots", "error", str(error), "correct --snapshots")
        return
    healthy = 0
    for stage, partitions in offsets.partitions.items():
        for partition in partitions:
            if partition.committed is None:
                continue
            task = f"{stage}-{partition.topic_partition.partition}"
            try:
                found = _check_task(storage.subfolder(task), partition, offsets.topic_ids[stage], snapshots.interval)
            except PrectrError as error:
                found = "error", str(error), "see that this machine can read the place of the snapshots"
            if found is None:
                healthy += 1
            else:
                severity, observed, advice = found
                yield Finding(f"snapshot {task}", "error" if severity == "error" else "warning", observed, advice)
    if healthy:
        yield Finding("snapshots", "ok", f"{healthy} tasks have a fresh one in {storage.name}")


def _check_task(
    storage: SnapshotStorage, partition: PartitionOffsets, topic_id: str, interval: float
) -> tuple[str, str, str] | None:
    """What is wrong with a task's snapshots: level, what was seen, what to do."""
    assert partition.committed is not None
    names = sorted(filter(is_manifest_name, storage.list_names("manifests")), reverse=True)
    if not names:
        return "warning", "there is none", "start its stream process with --snapshots; the first comes within minutes"
    sizes = storage.file_sizes("files")
    manifests = [(name, _read_manifest(storage, name)) for name in names]
    complete = [found for _, found in manifests if found is not None and found.sizes().items() <= sizes.items()]
    if not complete:
        return (
            "error",
            f"none of {len(names)} is whole",
            "delete the folder of the task; the next snapshot is made anew",
        )
    if complete[0] is not manifests[0][1]:
        return "warning", "the newest is damaged; the one before is whole", "nothing: the next one takes its place"
    return _check_manifest(complete[0], partition, topic_id, interval)


def _check_manifest(
    newest: SnapshotManifest, partition: PartitionOffsets, topic_id: str, interval: float
) -> tuple[str, str, str] | None:
    """What is wrong with a whole snapshot, beside what the broker says."""
    assert partition.committed is not None
    committed = partition.committed[0]
    if newest.identity.get("topic_id") != topic_id:
        return "error", "it belongs to another system", "use another --snapshots, one a system"
    if newest.offset < min(partition.start, committed):
        observed = f"offset {newest.offset:,}, but the log begins at {partition.start:,}"
        return (
            "error",
            observed,
            "a lost state folder could not be rebuilt: keep the log longer, see prectr topics check",
        )
    age = time.time() - newest.created_at
    if age > _MAX_AGE_INTERVALS * interval and newest.offset < committed:
        observed = f"{age / 60:,.0f} min old, {committed - newest.offset:,} records behind the commit"
        return "warning", observed, "look into the log of its stream process: does it run, and with --snapshots?"
    return None


def _read_manifest(storage: SnapshotStorage, name: str) -> SnapshotManifest | None:
    content = storage.read(f"manifests/{name}")
    return None if content is None else decode_manifest(name, content)
