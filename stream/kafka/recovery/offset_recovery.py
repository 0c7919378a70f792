"""Restores the offsets that a group has committed, from the stored state and from what the tasks have written.

A task's commit is an offset with metadata, made in one transaction with its outputs. Where another program has
overwritten it, or the broker has forgotten it, it is made again:

- sequence numbers, counts and reported ends are those of the task's last committed frames;
- the offset of an `aggregate` task is that of its stored state: what it emits again from there is counted, and left
  out, as after a crash;
- the offset of a `join` task is the largest of its stored state, of its last frame, and of the event after its last
  dead letter: it has written nothing between the largest and the offset that was committed.

One thing is not known: a dead letter for an event of the future is written long after its offset was read. If that
happened after the last frame, within about a second before the task ended, it is written twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from prectr.state.errors import PrectrError, StateError
from prectr.state.snapshots.storage import SnapshotStorage
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, OffsetRange
from prectr.stream.kafka.client.topics import Topics, check_topics, describe_topic
from prectr.stream.kafka.recovery.committed_output import (
    AggregateOutput,
    JoinOutput,
    Progress,
    read_aggregate_output,
    read_dead_letter_offsets,
    read_join_output,
)
from prectr.stream.kafka.recovery.stored_state import StoredState, TaskName, newest_stored_states
from prectr.stream.kafka.transactions.committed_offsets import NO_LEADER_EPOCH, CommitMetadata, decode_commit

STAGES: Final = ("join", "aggregate")
_NO_STATE: Final = StoredState(0, "no state: it is rebuilt from the log")


class TaskOffset(msgspec.Struct, frozen=True, kw_only=True):
    """The committed offset of a task, as it is and as it should be.

    Attributes:
        task: STAGE-PARTITION.
        found: what is committed now, in words.
        offset: offset to commit; None: the commit is sound and stays.
        metadata: to commit with it.
        source: what the offset was taken from.
    """

    task: str
    found: str
    offset: int | None = None
    metadata: CommitMetadata | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySettings:
    """The system whose offsets are to be restored.

    Attributes:
        state_dirs: state folders of all its stream workers.
        snapshots: where they keep snapshots; None: nowhere.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    state_dirs: Sequence[Path]
    snapshots: SnapshotStorage | None = None


class OffsetRecovery:
    """Finds the offsets to restore, and commits them."""

    def __init__(self, settings: RecoverySettings) -> None:
        """Look at the topics and groups.

        Raises:
            PrectrError: a stream worker is running, a topic is missing, or the broker does not answer.
        """
        self._settings = settings
        connection, topics = settings.connection, settings.topics
        self._partitions = check_topics(connection, topics)
        self._topics = dict(zip(STAGES, (topics.events, topics.joined_pages), strict=True))
        self._topic_ids = {stage: describe_topic(connection, name).topic_id for stage, name in self._topics.items()}
        self._groups = {stage: f"{settings.group_prefix}{stage}" for stage in STAGES}
        self._check_no_members()

    def plan(self, progress: Progress = lambda text: None) -> list[TaskOffset]:
        """Return each task's offset as it is and as it should be; changes nothing.

        Args:
            progress: called with what is being read.

        Raises:
            StateError: retention has removed what would tell an offset.
        """
        connection = self._settings.connection
        found = connection.call_admin(lambda admin: admin.list_group_offsets(list(self._groups.values())))
        ranges = self._ranges()
        unsound: dict[TaskName, str] = {}
        plan: dict[TaskName, TaskOffset] = {}
        for stage in STAGES:
            for number in range(self._partitions):
                task, partition = TaskName(stage, number), TopicPartition(self._topics[stage], number)
                words, is_sound = self._judge(found[self._groups[stage]], partition, stage, ranges[partition])
                plan[task] = TaskOffset(task=str(task), found=words)
                if not is_sound:
                    unsound[task] = words
        if unsound:
            self._restore(plan, unsound, ranges, progress)
        return list(plan.values())

    def execute(self, plan: Sequence[TaskOffset]) -> None:
        """Commit the offsets of a plan that are to be restored.

        Raises:
            PrectrError: a stream worker has been started, or the broker rejects it.
        """
        self._check_no_members()
        for stage in STAGES:
            offsets = {
                TopicPartition(self._topics[stage], int(each.task.rpartition("-")[2])): OffsetAndMetadata(
                    each.offset, msgspec.json.encode(each.metadata).decode(), NO_LEADER_EPOCH
                )
                for each in plan
                if each.offset is not None and each.task.startswith(f"{stage}-")
            }
            if not offsets:
                continue
            group = self._groups[stage]
            results: Mapping[TopicPartition, Any] = self._settings.connection.call_admin(
                lambda admin, group=group, offsets=offsets: admin.alter_group_offsets(group, offsets)  # type: ignore[misc]
            )
            for partition, error in results.items():
                if error is not NoError:
                    raise PrectrError(
                        f"group {group}: the broker rejects the offset of {partition.topic} partition "
                        f"{partition.partition} ({error.__name__}): stop all stream workers, and try again"
                    )

    def _judge(
        self, committed: Mapping[TopicPartition, Any], partition: TopicPartition, stage: str, log: OffsetRange
    ) -> tuple[str, bool]:
        """Return what is committed in words, and whether this program committed it for this log."""
        raw = committed.get(partition)
        if raw is None or raw.offset < 0:
            return "nothing", False
        try:
            decoded = decode_commit(raw, partition)
        except StateError:
            return f"{raw.offset:,}, by another program", False
        assert decoded is not None
        offset, metadata = decoded
        if metadata.topic_id != self._topic_ids[stage]:
            raise StateError(
                f"group {self._groups[stage]} has committed offset {offset} of an earlier {partition.topic}, which was "
                "deleted and recreated: its offsets cannot be restored"
            )
        return f"{offset:,}", offset <= log.end

    def _restore(
        self,
        plan: dict[TaskName, TaskOffset],
        unsound: Mapping[TaskName, str],
        ranges: Mapping[TopicPartition, OffsetRange],
        progress: Progress,
    ) -> None:
        settings = self._settings
        connection, topics = settings.connection, settings.topics
        cluster = str(connection.call_admin(lambda admin: admin.describe_cluster())["cluster_id"])
        states = newest_stored_states(list(unsound), settings.state_dirs, settings.snapshots, cluster, self._topic_ids)
        stages = {task.stage for task in unsound}
        joins = read_join_output(connection, topics, self._partitions, progress) if "join" in stages else []
        letters = read_dead_letter_offsets(connection, topics, self._partitions, progress) if "join" in stages else []
        aggregates = (
            read_aggregate_output(connection, topics, self._partitions, progress) if "aggregate" in stages else []
        )
        for task, words in unsound.items():
            state = states.get(task, _NO_STATE)
            topic_id = self._topic_ids[task.stage]
            if task.stage == "join":
                offset, source = _join_offset(state, joins[task.partition], letters[task.partition])
                metadata = _join_metadata(topic_id, joins[task.partition])
            else:
                offset, source = state.next_offset, state.location
                metadata = _aggregate_metadata(topic_id, aggregates[task.partition], self._partitions)
            log = ranges[TopicPartition(self._topics[task.stage], task.partition)]
            if not offset and not metadata.emitted and not any(metadata.sequences):
                # Nothing was ever read: as for a new group, there is nothing to commit.
                continue
            if offset > log.end:
                raise StateError(
                    f"{state.location}: the state is at offset {offset}, but the log ends at {log.end}: the broker has "
                    "lost records, or the state is of another system"
                )
            plan[task] = TaskOffset(task=str(task), found=words, offset=offset, metadata=metadata, source=source)

    def _ranges(self) -> dict[TopicPartition, OffsetRange]:
        partitions = [
            TopicPartition(topic, number) for topic in self._topics.values() for number in range(self._partitions)
        ]
        end_offsets = EndOffsets(self._settings.connection)
        try:
            with self._settings.connection.translate_errors():
                return end_offsets.fetch_ranges(partitions)
        finally:
            end_offsets.close()

    def _check_no_members(self) -> None:
        described = self._settings.connection.call_admin(
            lambda admin: admin.describe_groups(list(self._groups.values()))
        )
        for group in self._groups.values():
            members = len(described[group]["members"])
            if members:
                raise PrectrError(
                    f"group {group} has {members} members: stop all stream workers (a killed one is a member until its "
                    "session timeout has passed), and try again"
                )


def _join_offset(state: StoredState, output: JoinOutput, after_dead_letters: int) -> tuple[int, str]:
    return max(
        (state.next_offset, state.location),
        (output.read_offset, "its last frame in joined-pages"),
        (after_dead_letters, "its last dead letter"),
        key=lambda each: each[0],
    )


def _join_metadata(topic_id: str, output: JoinOutput) -> CommitMetadata:
    return CommitMetadata(
        topic_id,
        emitted=output.emitted,
        sequences=output.sequences,
        reached_end_offsets=[output.reached_end_offset] if output.reached_end_offset >= 0 else [],
    )


def _aggregate_metadata(topic_id: str, output: AggregateOutput, partitions: int) -> CommitMetadata:
    ends = output.reached_end_offsets
    return CommitMetadata(
        topic_id,
        emitted=output.emitted,
        sequences=[output.sequence],
        reached_end_offsets=[ends.get(source, -1) for source in range(partitions)] if ends else [],
    )
