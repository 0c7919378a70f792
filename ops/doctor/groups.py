"""The stages' consumer groups: who is there, what they have committed, and what they have not read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import TopicPartition

from prectr.ops.doctor.findings import Finding
from prectr.state.errors import StateError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, layout
from prectr.stream.kafka.transactions.producer import Committed, read_committed

STAGES: Final = ("sessions", "queries")


@dataclass(frozen=True, slots=True)
class Place:
    """A partition that a task reads. first: offset that the log begins at; end: behind its last record.

    committed: offset of the next unread record, and what was said with it. foreign: why the commit is none of ours.
    """

    partition: TopicPartition
    first: int
    end: int
    committed: tuple[int, Committed] | None
    foreign: str = ""

    @property
    def unread(self) -> int:
        """Records, markers of transactions counted, that the task has not committed."""
        return self.end - (self.committed[0] if self.committed else self.first)


@dataclass(frozen=True, slots=True)
class Commits:
    """Where the tasks stand. topic_ids: of the topic that each stage reads. examples: (first, end) by partition."""

    cluster: str
    topic_ids: Mapping[str, str]
    places: Mapping[str, list[Place]]
    examples: list[tuple[int, int]]


def read_commits(connection: Connection, topics: Topics, group_prefix: str, partitions: int) -> Commits:
    """Ask the broker where the tasks of both stages stand.

    Raises:
        PrectrError: it does not answer.
    """
    names = dict(zip(STAGES, (topics.events, topics.activity), strict=True))
    groups = [f"{group_prefix}{stage}" for stage in STAGES]
    found = connection.ask(lambda admin: admin.list_group_offsets(groups))
    cluster = str(connection.ask(lambda admin: admin.describe_cluster())["cluster_id"])
    consumer = connection.consumer(group_id=None)
    try:
        with connection.errors():
            wanted = {
                name: [TopicPartition(name, number) for number in range(partitions)]
                for name in (*names.values(), topics.examples)
            }
            flat = [each for some in wanted.values() for each in some]
            first, ends = consumer.beginning_offsets(flat), consumer.end_offsets(flat)
    finally:
        consumer.close()
    places = {
        stage: [_place(each, first[each], ends[each], found[f"{group_prefix}{stage}"]) for each in wanted[name]]
        for stage, name in names.items()
    }
    return Commits(
        cluster,
        {stage: layout(connection, name).identity for stage, name in names.items()},
        places,
        [(first[each], ends[each]) for each in wanted[topics.examples]],
    )


def _place(partition: TopicPartition, first: int, end: int, found: Mapping[TopicPartition, Any]) -> Place:
    try:
        return Place(partition, first, end, read_committed(found.get(partition), partition))
    except StateError as error:
        return Place(partition, first, end, None, str(error))


def check_groups(connection: Connection, group_prefix: str, commits: Commits) -> Iterator[Finding]:
    """Members and commits of both groups."""
    groups = [f"{group_prefix}{stage}" for stage in STAGES]
    described = connection.ask(lambda admin: admin.describe_groups(groups))
    for stage, group in zip(STAGES, groups, strict=True):
        yield _members(group, described[group], len(commits.places[stage]))
        yield from _commits(group, commits.places[stage], commits.topic_ids[stage])


def _members(group: str, described: Mapping[str, Any], partitions: int) -> Finding:
    name, members, state = f"group {group}", len(described["members"]), str(described["group_state"])
    hosts = sorted({str(member["client_host"]).lstrip("/") for member in described["members"]})
    if members == 0:
        advice = "start one: prectr stream --bootstrap … --state-dir …, or prectr run"
        return Finding(name, "warning", "no stream process is in it", advice)
    seen = f"{members} stream process(es) on {', '.join(hosts)}, {state}"
    if state != "Stable":
        advice = "they share the partitions out anew; if this lasts, look for a process that starts again and again"
        return Finding(name, "warning", seen, advice)
    if members > partitions:
        advice = f"with {partitions} partitions, {members - partitions} of them have nothing to do: stop them"
        return Finding(name, "warning", seen, advice)
    return Finding(name, "ok", seen)


def _commits(group: str, places: list[Place], topic_id: str) -> Iterator[Finding]:
    name = f"commits of {group}"
    bad = 0
    for place in places:
        where = f"partition {place.partition.partition}"
        if place.foreign:
            bad += 1
            yield Finding(name, "error", place.foreign, "use another --group-prefix")
        elif place.committed is None:
            continue
        elif place.committed[1].topic != topic_id:
            bad += 1
            advice = "use another --group-prefix and --state-dir: the topic was deleted and made anew"
            yield Finding(name, "error", f"{where}: the commit is of an earlier topic of this name", advice)
        elif not place.first <= place.committed[0] <= place.end:
            bad += 1
            advice = (
                "begin again under another --topic-prefix and --group-prefix: the broker no longer has what is next"
            )
            seen = f"{where}: offset {place.committed[0]:,} is next, the log holds {place.first:,} to {place.end:,}"
            yield Finding(name, "error", seen, advice)
    if bad:
        return
    topic = places[0].partition.topic
    unread = " ".join(f"{place.unread:,}" for place in places)
    if all(place.committed is None for place in places):
        if any(place.end > place.first for place in places):
            advice = "start a stream process; it reads from the beginning"
            yield Finding(name, "warning", f"nothing is read of {topic} yet", advice)
        else:
            yield Finding(name, "ok", f"none, and {topic} is empty")
        return
    yield Finding(name, "ok", f"unread of {topic}, by partition: {unread}")
