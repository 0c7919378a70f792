"""Whether tasks that have members advance, and what a task cannot pass."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kafka import TopicPartition

from prectr.ops.doctor.broker.groups import STAGES, GroupOffsets
from prectr.ops.doctor.broker.unread import check_frames, fetch_next_records
from prectr.ops.doctor.findings import Finding
from prectr.ops.report.numbers import duration
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics

_LONG_WAIT: Final = 60.0
"""Seconds that a record waits before its task is looked at a second time."""
_STALLED: Final = 600.0
"""As the alert PrectrPartitionStalled."""
_SECOND_LOOK: Final = 2.0
"""Seconds in which a task that works commits."""


def check_progress(
    connection: Connection, topics: Topics, group_prefix: str, offsets: GroupOffsets
) -> Iterator[Finding]:
    """Look at the records behind the commits, and at the commits again if one of those has waited for long.

    Raises:
        PrectrError: the broker does not answer.
    """
    positions = {
        each.topic_partition: each.committed[0]
        for partitions in offsets.partitions.values()
        for each in partitions
        if each.unread and each.committed is not None
    }
    started = time.monotonic()
    waiting = fetch_next_records(connection, positions)
    yield from check_frames(waiting, topics, len(offsets.examples))
    since = {partition: time.time() - records[0].timestamp / 1000 for partition, records in waiting.items()}
    late = {partition: seconds for partition, seconds in since.items() if seconds > _LONG_WAIT}
    groups = {f"{group_prefix}{stage}": offsets.partitions[stage][0].topic_partition.topic for stage in STAGES}
    described = connection.call_admin(lambda admin: admin.describe_groups(list(groups)))
    with_members = [group for group in groups if described[group]["members"]]
    if not late or not with_members:
        return
    time.sleep(max(0.0, _SECOND_LOOK - (time.monotonic() - started)))
    committed = connection.call_admin(lambda admin: admin.list_group_offsets(with_members))
    for group in with_members:
        now = {partition: found.offset for partition, found in committed[group].items()}
        stuck = {
            partition: seconds
            for partition, seconds in late.items()
            if partition.topic == groups[group] and now.get(partition) == positions[partition]
        }
        if stuck:
            yield _stalled(group, stuck, positions)


def _stalled(group: str, stuck: Mapping[TopicPartition, float], positions: Mapping[TopicPartition, int]) -> Finding:
    where = ", ".join(f"{partition.partition} at offset {positions[partition]:,}" for partition in sorted(stuck))
    longest = max(stuck.values())
    return Finding(
        f"commits of {group}",
        "error" if longest > _STALLED else "warning",
        f"they do not move, although records have waited for {duration(longest)}: partition {where}",
        "see the log of the stream worker: it restores its state, waits for a transaction or a slow disk, or has "
        "stopped there; see PrectrPartitionStalled in docs/runbook.md",
    )


def check_next_examples(
    connection: Connection, topics: Topics, positions: Sequence[int], offsets: GroupOffsets
) -> Iterator[Finding]:
    """Look at what the trainer reads next, from these positions on.

    Raises:
        PrectrError: the broker does not answer.
    """
    waiting = {
        TopicPartition(topics.examples, number): position
        for number, (position, (start, end)) in enumerate(zip(positions, offsets.examples, strict=False))
        if start <= position < end
    }
    if offsets.unread_examples(positions):
        yield from check_frames(fetch_next_records(connection, waiting), topics, len(offsets.examples))
