"""Snapshots of the state: one of every task, its age, and whether its files exist."""

import time
from collections.abc import Iterator
from typing import Final

from prectr.ops.doctor.broker.groups import GroupOffsets, PartitionOffsets
from prectr.ops.doctor.broker.topic_checks import SnapshotTarget
from prectr.ops.doctor.findings import Finding
from prectr.state.errors import PrectrError
from prectr.state.snapshots.manifest import SnapshotManifest, decode_manifest, is_manifest_name
from prectr.state.snapshots.storage import SnapshotStorage

_MAX_AGE_INTERVALS: Final = 5
"""Snapshot intervals after which a snapshot behind the commit counts as old."""


def check_snapshots(snapshots: SnapshotTarget | None, offsets: GroupOffsets) -> Iterator[Finding]:
    """Check the newest manifest of every task with a commit; the files are not read."""
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
                found = "error", str(error), "make sure that this machine can read the snapshot location"
            if found is None:
                healthy += 1
            else:
                severity, observed, advice = found
                yield Finding(f"snapshot {task}", "error" if severity == "error" else "warning", observed, advice)
    if healthy:
        yield Finding("snapshots", "ok", f"{healthy} tasks have a recent one in {storage.name}")


def _check_task(
    storage: SnapshotStorage, partition: PartitionOffsets, topic_id: str, interval: float
) -> tuple[str, str, str] | None:
    """A problem of the snapshots of a task: severity, observation, advice; None if there is none."""
    assert partition.committed is not None
    names = sorted(filter(is_manifest_name, storage.list_names("manifests")), reverse=True)
    if not names:
        return (
            "warning",
            "there is none",
            "start its stream worker with --snapshots; the first one follows within minutes",
        )
    sizes = storage.file_sizes("files")
    manifests = [(name, _read_manifest(storage, name)) for name in names]
    complete = [found for _, found in manifests if found is not None and found.sizes().items() <= sizes.items()]
    if not complete:
        return (
            "error",
            f"none of {len(names)} is complete",
            "delete the folder of the task; the next snapshot is a complete one",
        )
    if complete[0] is not manifests[0][1]:
        return (
            "warning",
            "the newest is corrupt; an earlier one is complete",
            "none needed: the next snapshot replaces it",
        )
    return _check_manifest(complete[0], partition, topic_id, interval)


def _check_manifest(
    newest: SnapshotManifest, partition: PartitionOffsets, topic_id: str, interval: float
) -> tuple[str, str, str] | None:
    """A problem of a complete snapshot compared with the broker; None if there is none."""
    assert partition.committed is not None
    committed = partition.committed[0]
    if newest.identity.get("topic_id") != topic_id:
        return "error", "it belongs to another system", "use another --snapshots location, one per system"
    if newest.offset < min(partition.start, committed):
        observed = f"offset {newest.offset:,}, but the log starts at {partition.start:,}"
        return (
            "error",
            observed,
            "lost state could not be rebuilt: increase the retention, see prectr topics check",
        )
    age = time.time() - newest.created_at
    if age > _MAX_AGE_INTERVALS * interval and newest.offset < committed:
        observed = f"{age / 60:,.0f} min old, {committed - newest.offset:,} records behind the commit"
        return "warning", observed, "see the log of its stream worker: is it running, and with --snapshots?"
    return None


def _read_manifest(storage: SnapshotStorage, name: str) -> SnapshotManifest | None:
    content = storage.read(f"manifests/{name}")
    return None if content is None else decode_manifest(name, content)
