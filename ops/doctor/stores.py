"""The state folders: whose they are, and how far behind their group's commit."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.groups import GroupOffsets, PartitionOffsets
from prectr.ops.doctor.lock_holder import lock_holder
from prectr.state.errors import StateError
from prectr.state.identity import IDENTITY_KEY, StoreIdentity
from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import META_KEY as AGGREGATE_META
from prectr.stream.aggregate.operator import AggregateMeta
from prectr.stream.join.state import META_KEY as JOIN_META
from prectr.stream.join.state import JoinMeta

_TASK_FOLDER: Final = re.compile(r"(join|aggregate)-(\d+)")
_ROCKSDICT_CONFIG: Final = "rocksdict-config.json"
"""Where a task keeps its `StoreIdentity`."""


def check_stores(state_dir: Path | None, offsets: GroupOffsets, snapshots: bool) -> Iterator[Finding]:
    """Look into the state folders, unless a running process has them open. snapshots: a lost one can be restored."""
    if state_dir is None:
        return
    folders = _task_folders(state_dir)
    if not folders:
        yield Finding("state", "ok", f"{state_dir} holds none yet")
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
            yield Finding("state", "ok", f"{parent}: {len(healthy)} tasks can be opened: {_with_counts(healthy)}")


def _with_counts(observed: list[str]) -> str:
    """What was seen of several tasks, equal ones once."""
    counts = Counter(observed)
    return "; ".join(text if count == 1 else f"{count} × {text}" for text, count in counts.items())


def _task_folders(state_dir: Path) -> list[Path]:
    """Of one process's state folder, or of all processes' under `prectr run`."""
    found = [*state_dir.glob("*"), *state_dir.glob("*/*")]
    return sorted(folder for folder in found if folder.is_dir() and _TASK_FOLDER.fullmatch(folder.name))


def _check_store(folder: Path, offsets: GroupOffsets, snapshots: bool) -> Finding:
    match = _TASK_FOLDER.fullmatch(folder.name)
    assert match is not None
    stage, number = match[1], int(match[2])
    name = f"state {folder}"
    rebuild = "delete the folder: it is rebuilt from " + ("its snapshot" if snapshots else "the log")
    try:
        identity, meta = _read_values(folder, [IDENTITY_KEY, AGGREGATE_META if stage == "aggregate" else JOIN_META])
    except StateError as error:
        return Finding(name, "error", str(error), rebuild)
    if identity is None:
        return Finding(name, "ok", "empty")
    try:
        stored_identity = msgspec.msgpack.decode(identity, type=StoreIdentity)
        offset = _stored_offset(stage, meta)
    except msgspec.MsgspecError:
        return Finding(name, "error", "it was written by another version of this program", rebuild)
    advice = "name the system's own --state-dir, or this state's --topic-prefix and --group-prefix"
    if number >= len(offsets.partitions[stage]):
        return Finding(name, "error", f"the topic has {len(offsets.partitions[stage])} partitions", advice)
    if (stored_identity.cluster, stored_identity.topic_id) != (offsets.cluster, offsets.topic_ids[stage]):
        observed = f"it is of {stored_identity.topic} in cluster {stored_identity.cluster}, not of this system"
        return Finding(name, "error", observed, advice)
    return _check_offset(name, offset, offsets.partitions[stage][number], rebuild)


def _read_values(folder: Path, keys: list[bytes]) -> list[bytes | None]:
    """Values of a store that nobody has open; raises StateError where it cannot be opened.

    Even read-only, rocksdict writes its own file into the folder: so the store is opened through links, from elsewhere.
    """
    with TemporaryDirectory(prefix="prectr-doctor-") as temporary:
        view = Path(temporary) / folder.name
        view.mkdir()
        for file in folder.iterdir():
            if file.name != _ROCKSDICT_CONFIG:
                (view / file.name).symlink_to(file.resolve())
        try:
            store = Store(view, StoreOptions(read_only=True))
            try:
                return store.get_many(keys)
            finally:
                store.close()
        except StateError as error:
            raise StateError(str(error).replace(str(view), str(folder))) from error


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
        advice = "use the group that wrote it (--group-prefix), or begin again with all names and folders new"
        return Finding(name, "error", f"it stands at offset {offset:,}, but the group has committed nothing", advice)
    committed = partition.committed[0]
    if offset > committed:
        advice = "another group wrote it: use that --group-prefix, or another --state-dir"
        return Finding(name, "error", f"it stands at offset {offset:,}, ahead of the commit at {committed:,}", advice)
    if max(offset, partition.committed[1].start_offset) < partition.start:
        observed = f"it stands at offset {offset:,}, but the log begins at {partition.start:,}"
        return Finding(name, "error", observed, f"bring back a state that is further on, or {rebuild}")
    if offset < committed:
        # After a rebalance the task is another process's, and the folder waits for it to come back.
        return Finding(name, "ok", f"{committed - offset:,} records behind the commit; they are taken again on start")
    return Finding(name, "ok", "at the commit")
