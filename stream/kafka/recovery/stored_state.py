"""How far the stored state of each task has come: in its folder, or in a snapshot of it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.state.encoding import DAMAGE
from prectr.state.errors import StateError
from prectr.state.identity import IDENTITY_KEY, decode_identity
from prectr.state.read_only_view import read_live_store
from prectr.state.snapshots.manifest import MAX_MANIFEST_BYTES, decode_manifest, is_manifest_name
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.stream.aggregate.source_frames import META_KEY as AGGREGATE_META
from prectr.stream.aggregate.source_frames import AggregateMeta
from prectr.stream.join.state import META_KEY as JOIN_META
from prectr.stream.join.state import JoinMeta

_TASK_FOLDER: Final = re.compile(r"(join|aggregate)-(\d+)")

_decode_meta: Final[Mapping[str, Callable[[bytes], JoinMeta | AggregateMeta]]] = {
    "join": msgspec.msgpack.Decoder(JoinMeta).decode,
    "aggregate": msgspec.msgpack.Decoder(AggregateMeta).decode,
}


class TaskName(NamedTuple):
    """A task: its stage, and the partition of the stage's input topic."""

    stage: str
    partition: int

    def __str__(self) -> str:
        return f"{self.stage}-{self.partition}"


class StoredState(NamedTuple):
    """The state of a task: the offset of its next unread record, and where it lies."""

    next_offset: int
    location: str


def newest_stored_states(
    tasks: Sequence[TaskName],
    state_dirs: Sequence[Path],
    snapshots: SnapshotStorage | None,
    cluster: str,
    topic_ids: Mapping[str, str],
) -> dict[TaskName, StoredState]:
    """Return the state of each task that has come furthest, of those that belong to this system.

    Args:
        state_dirs: state folders of stream workers, or folders of such.
        snapshots: where the workers keep snapshots; None: nowhere.
        cluster: id of the Kafka cluster.
        topic_ids: by stage, id of its input topic.

    Raises:
        StateError: a state cannot be read.
    """
    found = [*_of_folders(state_dirs, cluster, topic_ids)]
    if snapshots is not None:
        found += _of_snapshots(tasks, snapshots, cluster, topic_ids)
    newest: dict[TaskName, StoredState] = {}
    for task, state in found:
        if task in tasks and (task not in newest or state.next_offset > newest[task].next_offset):
            newest[task] = state
    return newest


def _of_folders(
    state_dirs: Sequence[Path], cluster: str, topic_ids: Mapping[str, str]
) -> Iterator[tuple[TaskName, StoredState]]:
    for folder in sorted(found for each in state_dirs for found in (*each.glob("*"), *each.glob("*/*"))):
        match = _TASK_FOLDER.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        task = TaskName(match[1], int(match[2]))
        identity, meta = read_live_store(folder, [IDENTITY_KEY, JOIN_META if task.stage == "join" else AGGREGATE_META])
        if identity is None or meta is None:
            continue
        try:
            owner = decode_identity(identity)
            offset = _decode_meta[task.stage](meta).next_offset
        except DAMAGE as error:
            raise StateError(f"{folder}: another version of this program wrote the state") from error
        if (owner.cluster, owner.topic_id) == (cluster, topic_ids[task.stage]):
            yield task, StoredState(offset, str(folder))


def _of_snapshots(
    tasks: Sequence[TaskName], snapshots: SnapshotStorage, cluster: str, topic_ids: Mapping[str, str]
) -> Iterator[tuple[TaskName, StoredState]]:
    for task in tasks:
        storage = snapshots.subfolder(str(task))
        for name in sorted(filter(is_manifest_name, storage.list_names("manifests")), reverse=True):
            content = storage.read(f"manifests/{name}", MAX_MANIFEST_BYTES)
            manifest = None if content is None else decode_manifest(name, content)
            if manifest is None:
                continue
            owner = manifest.identity
            if (owner.get("cluster"), owner.get("topic_id")) == (cluster, topic_ids[task.stage]):
                yield task, StoredState(manifest.offset, f"snapshot {name}")
            break
