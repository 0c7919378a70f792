"""The stages' consumer groups: who is there, what they have committed, and what they have not read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import TopicPartition

from prectr.ops.doctor.findings import Finding
from prectr.state.errors import StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, describe_topic
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata, decode_commit

STAGES: Final = ("join", "aggregate")


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """A partition that a task reads. first: offset that the log begins at; end: behind its last record.

    committed: offset of the next unread record, and what was said with it. foreign: why the commit is none of ours.
    """

    topic_partition: TopicPartition
    start: int
    end: int
    committed: tuple[int, CommitMetadata] | None
    foreign_reason: str = ""

    @property
    def lag(self) -> int:
        """Records, markers of transactions counted, that the task has not committed."""
        return self.end - (self.committed[0] if self.committed else self.start)


@dataclass(frozen=True, slots=True)
class GroupOffsets:
    """Where the tasks stand. topic_ids: of the topic that each stage reads. examples: (first, end) by partition."""

    cluster: str
    topic_ids: Mapping[str, str]
    partitions: Mapping[str, list[PartitionOffsets]]
    examples: list[tuple[int, int]]


def fetch_group_offsets(connection: Connection, topics: Topics, group_prefix: str, partitions: int) -> GroupOffsets:
    """Ask the broker where the tasks of both stages stand.

    Raises:
        PrectrError: it does not answer.
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
            _partition_offsets(each, starts[each], ends[each], committed[f"{group_prefix}{stage}"])
            for each in topic_partitions[name]
        ]
        for stage, name in names.items()
    }
    return GroupOffsets(
        cluster,
        {stage: describe_topic(connection, name).topic_id for stage, name in names.items()},
        offsets,
        [(starts[each], ends[each]) for each in topic_partitions[topics.examples]],
    )


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
        yield _check_members(group, described[group], len(offsets.partitions[stage]))
        yield from _check_commits(group, offsets.partitions[stage], offsets.topic_ids[stage])


def _check_members(group: str, described: Mapping[str, Any], partitions: int) -> Finding:
    name, members, state = f"group {group}", len(described["members"]), str(described["group_state"])
    hosts = sorted({str(member["client_host"]).lstrip("/") for member in described["members"]})
    if members == 0:
        advice = "start one: prectr stream --bootstrap … --state-dir …, or prectr run"
        return Finding(name, "warning", "no stream process is in it", advice)
    observed = f"{members} stream process(es) on {', '.join(hosts)}, {state}"
    if state != "Stable":
        advice = "they share the partitions out anew; if this lasts, look for a process that starts again and again"
        return Finding(name, "warning", observed, advice)
    if members > partitions:
        advice = f"with {partitions} partitions, {members - partitions} of them have nothing to do: stop them"
        return Finding(name, "warning", observed, advice)
    return Finding(name, "ok", observed)


def _check_commits(group: str, partitions: list[PartitionOffsets], topic_id: str) -> Iterator[Finding]:
    name = f"commits of {group}"
    bad = 0
    for offsets in partitions:
        where = f"partition {offsets.topic_partition.partition}"
        if offsets.foreign_reason:
            bad += 1
            yield Finding(name, "error", offsets.foreign_reason, "use another --group-prefix")
        elif offsets.committed is None:
            continue
        elif offsets.committed[1].topic_id != topic_id:
            bad += 1
            advice = "use another --group-prefix and --state-dir: the topic was deleted and made anew"
            yield Finding(name, "error", f"{where}: the commit is of an earlier topic of this name", advice)
        elif not offsets.start <= offsets.committed[0] <= offsets.end:
            bad += 1
            advice = (
                "begin again under another --topic-prefix and --group-prefix: the broker no longer has what is next"
            )
            observed = (
                f"{where}: offset {offsets.committed[0]:,} is next, the log holds {offsets.start:,} to {offsets.end:,}"
            )
            yield Finding(name, "error", observed, advice)
    if bad:
        return
    topic = partitions[0].topic_partition.topic
    unread = " ".join(f"{place.lag:,}" for place in partitions)
    if all(place.committed is None for place in partitions):
        if any(place.end > place.start for place in partitions):
            advice = "start a stream process; it reads from the beginning"
            yield Finding(name, "warning", f"nothing is read of {topic} yet", advice)
        else:
            yield Finding(name, "ok", f"none, and {topic} is empty")
        return
    yield Finding(name, "ok", f"unread of {topic}, by partition: {unread}")
