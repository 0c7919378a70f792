"""The state folders: which system they belong to, and their offset compared with the commit."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from prectr.ops.doctor.broker.groups import GroupOffsets, PartitionOffsets
from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host.lock_holder import lock_holder
from prectr.state.errors import StateError, SystemLimitError
from prectr.state.identity import IDENTITY_KEY, StoreIdentity, decode_identity
from prectr.state.read_only_view import read_live_store
from prectr.stream.aggregate.source_frames import META_KEY as AGGREGATE_META
from prectr.stream.aggregate.source_frames import AggregateMeta
from prectr.stream.join.state import META_KEY as JOIN_META
from prectr.stream.join.state import JoinMeta

_TASK_FOLDER: Final = re.compile(r"(join|aggregate)-(\d+)")


def check_stores(state_dir: Path | None, offsets: GroupOffsets, snapshots: bool) -> Iterator[Finding]:
    """Check the state folders that no running process uses. snapshots: whether lost state has snapshots."""
    if state_dir is None:
        return
    folders = _task_folders(state_dir)
    if not folders:
        yield Finding("state", "ok", f"{state_dir} has none yet")
    for parent in sorted({folder.parent for folder in folders}):
        tasks = [folder for folder in folders if folder.parent == parent]
        pid = lock_holder(parent / ".lock")
        if pid is not None:
            yield Finding("state", "ok", f"{parent}: {len(tasks)} tasks, in use by running process {pid}")
            continue
        found = [_check_store(folder, offsets, snapshots) for folder in tasks]
        bad = [finding for finding in found if finding.severity != "ok"]
        yield from bad
        healthy = [finding.observed for finding in found if finding.severity == "ok"]
        if healthy:
            yield Finding("state", "ok", f"{parent}: {len(healthy)} tasks are readable: {_with_counts(healthy)}")


def _with_counts(observed: list[str]) -> str:
    """Join the observations, equal ones once with their number."""
    counts = Counter(observed)
    return "; ".join(text if count == 1 else f"{count} × {text}" for text, count in counts.items())


def _task_folders(state_dir: Path) -> list[Path]:
    """The task folders of one process, or of all processes of `prectr run`."""
    found = [*state_dir.glob("*"), *state_dir.glob("*/*")]
    return sorted(folder for folder in found if folder.is_dir() and _TASK_FOLDER.fullmatch(folder.name))


def _check_store(folder: Path, offsets: GroupOffsets, snapshots: bool) -> Finding:
    match = _TASK_FOLDER.fullmatch(folder.name)
    assert match is not None
    stage, number = match[1], int(match[2])
    name = f"state {folder}"
    rebuild = "delete the folder: it is rebuilt from " + ("its snapshot" if snapshots else "the log")
    try:
        identity, meta = read_live_store(folder, [IDENTITY_KEY, AGGREGATE_META if stage == "aggregate" else JOIN_META])
    except StateError as error:
        is_limit = isinstance(error, SystemLimitError)
        return Finding(name, "error", str(error), "keep the folder and check again" if is_limit else rebuild)
    if identity is None:
        return Finding(name, "ok", "empty")
    try:
        stored_identity = decode_identity(identity)
        offset = _stored_offset(stage, meta)
    except msgspec.MsgspecError:
        return Finding(name, "error", "written by another version of prectr", rebuild)
    other = _belongs_elsewhere(name, stored_identity, stage, number, offsets)
    if other is not None:
        return other
    return _check_offset(name, offset, offsets.partitions[stage][number], rebuild)


def _belongs_elsewhere(
    name: str, stored: StoreIdentity, stage: str, number: int, offsets: GroupOffsets
) -> Finding | None:
    """The finding about a state of another system, or of a topic that is gone; None if it is of this system."""
    advice = "use the --state-dir of this system, or the --topic-prefix and --group-prefix of this state"
    partitions = offsets.partitions[stage]
    if number >= len(partitions):
        return Finding(name, "error", f"the topic has {len(partitions)} partitions", advice)
    if (stored.cluster, stored.topic_id) == (offsets.cluster, offsets.topic_ids[stage]):
        return None
    topic = partitions[number].topic_partition.topic
    if (stored.cluster, stored.topic) == (offsets.cluster, topic):
        advice = "start over with other prefixes and folders: docs/runbook.md, section Starting over"
        return Finding(name, "error", f"belongs to an earlier {topic}, which was deleted and recreated", advice)
    observed = f"belongs to {stored.topic} in cluster {stored.cluster}, not to this system"
    return Finding(name, "error", observed, advice)


def _stored_offset(stage: str, meta: bytes | None) -> int:
    if meta is None:
        return 0
    if stage == "aggregate":
        return msgspec.msgpack.decode(meta, type=AggregateMeta).next_offset
    return msgspec.msgpack.decode(meta, type=JoinMeta).next_offset


def _check_offset(name: str, offset: int, partition: PartitionOffsets, rebuild: str) -> Finding:
    if partition.committed is None:
        if offset == 0:
            return Finding(name, "ok", "nothing read yet")
        advice = "if the group's offsets have expired or were deleted, see prectr state restore-offsets, which keeps "
        advice += "the state; else use the group that wrote it (--group-prefix)"
        return Finding(name, "error", f"at offset {offset:,}, but the group has committed nothing", advice)
    committed = partition.committed[0]
    if offset > committed:
        advice = "another group wrote it: use that --group-prefix, or another --state-dir"
        return Finding(name, "error", f"at offset {offset:,}, ahead of the commit at {committed:,}", advice)
    if max(offset, partition.committed[1].start_offset) < partition.start:
        observed = f"at offset {offset:,}, but the log starts at {partition.start:,}"
        return Finding(name, "error", observed, f"restore a newer state, or {rebuild}")
    if offset < committed:
        # After a rebalance the task may run elsewhere, and this folder is kept for its return.
        return Finding(name, "ok", f"{committed - offset:,} records behind the commit; they are reprocessed on start")
    return Finding(name, "ok", "at the commit")
