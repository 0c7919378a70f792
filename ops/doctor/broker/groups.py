"""The consumer groups of the stages: members, commits and lag."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kafka import TopicPartition

from prectr.ops.doctor.broker.newest_records import NewestRecords
from prectr.ops.doctor.broker.unread import unread_records
from prectr.ops.doctor.findings import Finding
from prectr.state.errors import StateError
from prectr.stream.config import PipelineConfig
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, describe_topic
from prectr.stream.kafka.tasks.task_context import settings_digest
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata, decode_commit

STAGES: Final = ("join", "aggregate")


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """A partition that a task reads.

    start: first offset of the log. end: offset after the last record. committed: offset of the next unread record and
    the metadata of the commit; None without a commit. foreign_reason: why the commit is not ours; empty if it is.
    unread: records that wait for the task, a few more or less.
    """

    topic_partition: TopicPartition
    start: int
    end: int
    committed: tuple[int, CommitMetadata] | None
    foreign_reason: str = ""
    unread: int = 0

    @property
    def lag(self) -> int:
        """Records that the task has not committed, including transaction markers."""
        return self.end - (self.committed[0] if self.committed else self.start)


@dataclass(frozen=True, slots=True)
class GroupOffsets:
    """Offsets of all tasks.

    topic_ids: by stage, of its input topic. examples: (start, end) by partition. newest_examples: the last records of
    training-examples, by partition.
    """

    cluster: str
    topic_ids: Mapping[str, str]
    partitions: Mapping[str, list[PartitionOffsets]]
    examples: list[tuple[int, int]]
    newest_examples: Sequence[Sequence[Any]] = ()

    @property
    def unread(self) -> int:
        """Records that wait for a task of any stage."""
        return sum(each.unread for partitions in self.partitions.values() for each in partitions)

    def unread_examples(self, positions: Sequence[int]) -> int:
        """Return how many records of training-examples wait behind these positions of a trainer, by partition."""
        return sum(
            unread_records(position, end, newest, are_frames=True)
            for position, (_, end), newest in zip(positions, self.examples, self.newest_examples, strict=False)
        )


def fetch_group_offsets(
    connection: Connection, topics: Topics, group_prefix: str, partitions: int, newest: NewestRecords
) -> GroupOffsets:
    """Read the offsets of the tasks of both stages; raises PrectrError if the broker does not respond.

    newest: the last records of each partition, read before.
    """
    names = dict(zip(STAGES, (topics.events, topics.joined_pages), strict=True))
    groups = [f"{group_prefix}{stage}" for stage in STAGES]
    committed = connection.call_admin(lambda admin: admin.list_group_offsets(groups))
    cluster = str(connection.call_admin(lambda admin: admin.describe_cluster())["cluster_id"])
    consumer = connection.consumer(group_id=None)
    try:
        with connection.translate_errors():
            topic_partitions = {
                name: [TopicPartition(name, number) for number in range(partitions)]
                for name in (*names.values(), topics.examples)
            }
            flat = [each for some in topic_partitions.values() for each in some]
            starts, ends = consumer.beginning_offsets(flat), consumer.end_offsets(flat)
    finally:
        consumer.close()
    offsets = {
        stage: [
            _with_unread(
                _partition_offsets(each, starts[each], ends[each], committed[f"{group_prefix}{stage}"]),
                newest.get(each, []),
                are_frames=stage != "join",
            )
            for each in topic_partitions[name]
        ]
        for stage, name in names.items()
    }
    return GroupOffsets(
        cluster,
        {stage: describe_topic(connection, name).topic_id for stage, name in names.items()},
        offsets,
        [(starts[each], ends[each]) for each in topic_partitions[topics.examples]],
        [newest.get(each, []) for each in topic_partitions[topics.examples]],
    )


def _with_unread(offsets: PartitionOffsets, newest: Sequence[Any], *, are_frames: bool) -> PartitionOffsets:
    position = offsets.committed[0] if offsets.committed else offsets.start
    return replace(offsets, unread=unread_records(position, offsets.end, newest, are_frames=are_frames))


def _partition_offsets(
    partition: TopicPartition, start: int, end: int, found: Mapping[TopicPartition, Any]
) -> PartitionOffsets:
    try:
        return PartitionOffsets(partition, start, end, decode_commit(found.get(partition), partition))
    except StateError as error:
        return PartitionOffsets(partition, start, end, None, str(error))


def check_groups(connection: Connection, group_prefix: str, offsets: GroupOffsets) -> Iterator[Finding]:
    """Members and commits of both groups."""
    groups = [f"{group_prefix}{stage}" for stage in STAGES]
    described = connection.call_admin(lambda admin: admin.describe_groups(groups))
    for stage, group in zip(STAGES, groups, strict=True):
        yield _check_members(group, described[group], offsets.partitions[stage])
        output = [*offsets.examples]
        if stage == "join":
            output += [(each.start, each.end) for each in offsets.partitions["aggregate"]]
        has_output = any(end for _, end in output)
        yield from _check_commits(group, offsets.partitions[stage], offsets.topic_ids[stage], has_output=has_output)


def _check_members(group: str, described: Mapping[str, Any], offsets: Sequence[PartitionOffsets]) -> Finding:
    partitions = len(offsets)
    name, members, state = f"group {group}", len(described["members"]), str(described["group_state"])
    hosts = sorted({str(member["client_host"]).lstrip("/") for member in described["members"]})
    if members == 0:
        advice = "start one: prectr stream --bootstrap … --state-dir …, or prectr run"
        if all(each.committed is None and not each.foreign_reason for each in offsets):
            return Finding(name, "ok", f"has no members and has committed nothing: not started yet; {advice}")
        unread = sum(each.unread for each in offsets)
        if unread:
            observed = f"has no members, and {unread:,} records of {offsets[0].topic_partition.topic} wait for it"
            return Finding(name, "error", observed, f"its stream workers have stopped or cannot join it: {advice}")
        return Finding(name, "warning", "has no members; nothing waits for it", advice)
    observed = f"{members} stream worker(s) on {', '.join(hosts)}, {state}"
    if state != "Stable":
        advice = "a rebalance is in progress; if this lasts, look for a process that restarts repeatedly"
        return Finding(name, "warning", observed, advice)
    if members > partitions:
        advice = f"with {partitions} partitions, {members - partitions} of them are idle: stop them"
        return Finding(name, "warning", observed, advice)
    return Finding(name, "ok", observed)


def _check_commits(
    group: str, partitions: list[PartitionOffsets], topic_id: str, *, has_output: bool
) -> Iterator[Finding]:
    """Check what a group has committed. has_output: whether its stage, or one after it, has ever put out anything."""
    name = f"commits of {group}"
    bad = 0
    for offsets in partitions:
        source = f"partition {offsets.topic_partition.partition}"
        if offsets.foreign_reason:
            bad += 1
            advice = "if its offsets were reset, see prectr state restore-offsets, which keeps the state"
            yield Finding(name, "error", offsets.foreign_reason, f"{advice}; else use another --group-prefix")
        elif offsets.committed is None:
            continue
        elif offsets.committed[1].topic_id != topic_id:
            bad += 1
            advice = "the topic was deleted and recreated: start over, as in docs/runbook.md, section Starting over"
            yield Finding(name, "error", f"{source}: the commit belongs to an earlier topic of this name", advice)
        elif not offsets.start <= offsets.committed[0] <= offsets.end:
            bad += 1
            advice = (
                "the next records are no longer in the log: start over, as in docs/runbook.md, section Starting over"
            )
            observed = (
                f"{source}: next offset is {offsets.committed[0]:,}, the log holds {offsets.start:,} to {offsets.end:,}"
            )
            yield Finding(name, "error", observed, advice)
    if bad:
        return
    topic = partitions[0].topic_partition.topic
    lag = " ".join(f"{offsets.lag:,}" for offsets in partitions)
    if all(offsets.committed is None for offsets in partitions):
        if has_output:
            observed = f"nothing of {topic} is committed, although the stage has written records: its offsets have "
            observed += "expired or were deleted"
            advice = "see prectr state restore-offsets, which keeps the state"
            yield Finding(name, "error", observed, advice)
        elif any(offsets.end > offsets.start for offsets in partitions):
            observed = f"nothing of {topic} is committed yet: a stream worker reads it from the beginning"
            yield Finding(name, "ok", observed)
        else:
            yield Finding(name, "ok", f"none, and {topic} is empty")
        return
    yield Finding(name, "ok", f"lag of {topic}, by partition: {lag}")


def check_settings(config: PipelineConfig, offsets: GroupOffsets, *, is_given: bool = True) -> Iterator[Finding]:
    """Compare the stages' settings of this command with those of the commits. Nothing without a commit.

    is_given: whether this command was given settings at all; without them there is nothing to compare.
    """
    compared = False
    for stage, partitions in offsets.partitions.items():
        own = settings_digest(replace(config, partitions=len(partitions)))
        committed = {each.committed[1].settings for each in partitions if each.committed is not None} - {""}
        if committed - {own}:
            if not is_given:
                observed = "not compared: the commits were made with others than the defaults; --config compares a file"
                yield Finding("settings", "ok", observed)
                return
            observed = f"the commits of {stage} were made with other settings than this command has"
            advice = (
                "a stream worker with the settings of this command (environment, --config) is refused: prectr settings"
            )
            yield Finding("settings", "warning", observed, advice)
            return
        compared = compared or bool(committed)
    if compared:
        yield Finding("settings", "ok", "those of this command are those of the commits")
