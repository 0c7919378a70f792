"""The state folders: whose they are, and how far behind their group's commit."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.groups import Commits, Place
from prectr.ops.doctor.lock_holder import holder
from prectr.state.errors import StateError
from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import META_KEY as QUERIES_META
from prectr.stream.aggregate.operator import QueriesMeta
from prectr.stream.join.state import META_KEY as SESSIONS_META
from prectr.stream.join.state import SessionsMeta
from prectr.stream.kafka.tasks.task import IDENTITY_KEY, StoreIdentity

_TASK: Final = re.compile(r"(sessions|queries)-(\d+)")
_ROCKSDICT: Final = "rocksdict-config.json"
"""Where a task keeps its `StoreIdentity`."""


def check_stores(state_dir: Path | None, commits: Commits, snapshots: bool) -> Iterator[Finding]:
    """Look into the state folders, unless a running process has them open. snapshots: a lost one can be restored."""
    if state_dir is None:
        return
    folders = _task_folders(state_dir)
    if not folders:
        yield Finding("state", "ok", f"{state_dir} holds none yet")
    for parent in sorted({folder.parent for folder in folders}):
        tasks = [folder for folder in folders if folder.parent == parent]
        pid = holder(parent / ".lock")
        if pid is not None:
            yield Finding("state", "ok", f"{parent}: {len(tasks)} tasks, in use by running process {pid}")
            continue
        found = [_store(folder, commits, snapshots) for folder in tasks]
        bad = [finding for finding in found if finding.level != "ok"]
        yield from bad
        well = [finding.seen for finding in found if finding.level == "ok"]
        if well:
            yield Finding("state", "ok", f"{parent}: {len(well)} tasks can be opened: {_counted(well)}")


def _counted(seen: list[str]) -> str:
    """What was seen of several tasks, equal ones once."""
    counts = Counter(seen)
    return "; ".join(text if count == 1 else f"{count} × {text}" for text, count in counts.items())


def _task_folders(state_dir: Path) -> list[Path]:
    """Of one process's state folder, or of all processes' under `prectr run`."""
    found = [*state_dir.glob("*"), *state_dir.glob("*/*")]
    return sorted(folder for folder in found if folder.is_dir() and _TASK.fullmatch(folder.name))


def _store(folder: Path, commits: Commits, snapshots: bool) -> Finding:
    match = _TASK.fullmatch(folder.name)
    assert match is not None
    stage, number = match[1], int(match[2])
    name = f"state {folder}"
    rebuild = "delete the folder: it is rebuilt from " + ("its snapshot" if snapshots else "the log")
    try:
        identity, meta = _read(folder, [IDENTITY_KEY, QUERIES_META if stage == "queries" else SESSIONS_META])
    except StateError as error:
        return Finding(name, "error", str(error), rebuild)
    if identity is None:
        return Finding(name, "ok", "empty")
    try:
        owner = msgspec.msgpack.decode(identity, type=StoreIdentity)
        offset = _offset(stage, meta)
    except msgspec.MsgspecError:
        return Finding(name, "error", "it was written by another version of this program", rebuild)
    elsewhere = "name the system's own --state-dir, or this state's --topic-prefix and --group-prefix"
    if number >= len(commits.places[stage]):
        return Finding(name, "error", f"the topic has {len(commits.places[stage])} partitions", elsewhere)
    if (owner.cluster, owner.topic_id) != (commits.cluster, commits.topic_ids[stage]):
        seen = f"it is of {owner.topic} in cluster {owner.cluster}, not of this system"
        return Finding(name, "error", seen, elsewhere)
    return _held_against(name, offset, commits.places[stage][number], rebuild)


def _read(folder: Path, keys: list[bytes]) -> list[bytes | None]:
    """Values of a store that nobody has open; raises StateError where it cannot be opened.

    Even read-only, rocksdict writes its own file into the folder: so the store is opened through links, from elsewhere.
    """
    with TemporaryDirectory(prefix="prectr-doctor-") as beside:
        view = Path(beside) / folder.name
        view.mkdir()
        for file in folder.iterdir():
            if file.name != _ROCKSDICT:
                (view / file.name).symlink_to(file.resolve())
        try:
            store = Store(view, StoreOptions(read_only=True))
            try:
                return store.get_many(keys)
            finally:
                store.close()
        except StateError as error:
            raise StateError(str(error).replace(str(view), str(folder))) from error


def _offset(stage: str, meta: bytes | None) -> int:
    if meta is None:
        return 0
    if stage == "queries":
        return msgspec.msgpack.decode(meta, type=QueriesMeta).offset
    return msgspec.msgpack.decode(meta, type=SessionsMeta).position


def _held_against(name: str, offset: int, place: Place, rebuild: str) -> Finding:
    if place.committed is None:
        if offset == 0:
            return Finding(name, "ok", "nothing read yet")
        advice = "use the group that wrote it (--group-prefix), or begin again with all names and folders new"
        return Finding(name, "error", f"it stands at offset {offset:,}, but the group has committed nothing", advice)
    committed = place.committed[0]
    if offset > committed:
        advice = "another group wrote it: use that --group-prefix, or another --state-dir"
        return Finding(name, "error", f"it stands at offset {offset:,}, ahead of the commit at {committed:,}", advice)
    if max(offset, place.committed[1].began) < place.first:
        seen = f"it stands at offset {offset:,}, but the log begins at {place.first:,}"
        return Finding(name, "error", seen, f"bring back a state that is further on, or {rebuild}")
    if offset < committed:
        # After a rebalance the task is another process's, and the folder waits for it to come back.
        return Finding(name, "ok", f"{committed - offset:,} records behind the commit; they are taken again on start")
    return Finding(name, "ok", "at the commit")
