"""Snapshots of the state: one of every task, its age, and whether its files exist."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from prectr.ops.doctor.broker.groups import GroupOffsets, PartitionOffsets
from prectr.ops.doctor.broker.topic_checks import SnapshotTarget
from prectr.ops.doctor.findings import Finding, Severity
from prectr.ops.doctor.host.lock_holder import lock_holder, running_seconds
from prectr.ops.report.numbers import duration
from prectr.state.errors import PrectrError
from prectr.state.snapshots.manifest import SnapshotManifest, decode_manifest, is_manifest_name
from prectr.state.snapshots.storage import SnapshotStorage

_MAX_AGE_INTERVALS: Final = 5
"""Snapshot intervals after which a snapshot behind the commit counts as old."""
_MAX_NAMED: Final = 4


class _Problem(NamedTuple):
    """A finding that several tasks may share. passes: whether it does so by itself, some time after a start."""

    severity: Severity
    observed: str
    advice: str
    passes: bool = False


def check_snapshots(
    snapshots: SnapshotTarget | None, offsets: GroupOffsets, state_dir: Path | None = None
) -> Iterator[Finding]:
    """Check the newest manifest of every task with a commit; the files are not read.

    state_dir: where processes that have just started are known by their locks: their first snapshot follows.
    """
    if snapshots is None:
        return
    try:
        storage = SnapshotStorage(snapshots.url)
    except PrectrError as error:
        yield Finding("snapshots", "error", str(error), "correct --snapshots")
        return
    started = _started_seconds(state_dir)
    healthy = 0
    problems: dict[_Problem, list[str]] = {}
    for stage, partitions in offsets.partitions.items():
        for partition in partitions:
            if partition.committed is None:
                continue
            task = f"{stage}-{partition.topic_partition.partition}"
            try:
                found = _check_task(storage.subfolder(task), partition, offsets.topic_ids[stage], snapshots.interval)
            except PrectrError as error:
                found = _Problem("error", str(error), "make sure that this machine can read the snapshot location")
            if found is None:
                healthy += 1
            else:
                problems.setdefault(found, []).append(task)
    for problem, tasks in problems.items():
        name = f"snapshot {', '.join(tasks)}" if len(tasks) <= _MAX_NAMED else f"snapshots of {len(tasks)} tasks"
        if problem.passes and started is not None and started < _MAX_AGE_INTERVALS * snapshots.interval:
            observed = f"{problem.observed}; the stream worker started {duration(started)} ago, and the next follows"
            yield Finding(name, "ok", observed)
        else:
            yield Finding(name, problem.severity, problem.observed, problem.advice)
    if healthy:
        yield Finding("snapshots", "ok", f"{healthy} tasks have a recent one in {storage.name}")


def _check_task(
    storage: SnapshotStorage, partition: PartitionOffsets, topic_id: str, interval: float
) -> _Problem | None:
    """A problem of the snapshots of a task; None if there is none."""
    assert partition.committed is not None
    names = sorted(filter(is_manifest_name, storage.list_names("manifests")), reverse=True)
    if not names:
        advice = "start its stream worker with --snapshots; the first one follows within minutes"
        return _Problem("warning", "there is none", advice, passes=True)
    sizes = storage.file_sizes("files")
    manifests = [(name, _read_manifest(storage, name)) for name in names]
    complete = [found for _, found in manifests if found is not None and found.sizes().items() <= sizes.items()]
    if not complete:
        return _Problem(
            "error",
            f"none of {len(names)} is complete",
            "delete the folder of the task; the next snapshot is a complete one",
        )
    if complete[0] is not manifests[0][1]:
        return _Problem(
            "warning",
            "the newest is corrupt; an earlier one is complete",
            "none needed: the next snapshot replaces it",
        )
    return _check_manifest(complete[0], partition, topic_id, interval)


def _check_manifest(
    newest: SnapshotManifest, partition: PartitionOffsets, topic_id: str, interval: float
) -> _Problem | None:
    """A problem of a complete snapshot compared with the broker; None if there is none."""
    assert partition.committed is not None
    committed = partition.committed[0]
    if newest.identity.get("topic_id") != topic_id:
        return _Problem("error", "it belongs to another system", "use another --snapshots location, one per system")
    if newest.offset < min(partition.start, committed):
        observed = f"offset {newest.offset:,}, but the log starts at {partition.start:,}"
        return _Problem(
            "error",
            observed,
            "lost state could not be rebuilt: increase the retention, see prectr topics check",
        )
    age = time.time() - newest.created_at
    if age > _MAX_AGE_INTERVALS * interval and newest.offset < committed:
        observed = f"{age / 60:,.0f} min old, and the commit has moved on since"
        advice = "see the log of its stream worker: is it running, and with --snapshots?"
        return _Problem("warning", observed, advice, passes=True)
    return None


def _started_seconds(state_dir: Path | None) -> float | None:
    """For how long the process that started last has held its state folder; None if none is known to run."""
    folders = [] if state_dir is None else [state_dir, *state_dir.glob("*")]
    holders = {lock_holder(folder / ".lock") for folder in folders} - {None}
    ages = [seconds for pid in holders if pid is not None and (seconds := running_seconds(pid)) is not None]
    return min(ages, default=None)


def _read_manifest(storage: SnapshotStorage, name: str) -> SnapshotManifest | None:
    content = storage.read(f"manifests/{name}")
    return None if content is None else decode_manifest(name, content)
