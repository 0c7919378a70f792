"""Logs split by position and by partition, and the late records that the `aggregate` tasks report."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from prectr.stream.join.event_clock import SETTLING_TURNS
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.ordering.frames import decode_frame
from testkit.command import write_log
from testkit.oracle.contract import partition_of
from tests.kafka.live import Live
from tests.kit.stages.events import SECOND, T, page

Lines = list[bytes]


def lines_of(log: Path) -> Lines:
    return log.read_bytes().removesuffix(b"\n").split(b"\n")


def partition_of_line(line: bytes, partitions: int) -> int:
    """Return the partition of a line's user; -1 if it has none."""
    try:
        return partition_of(json.loads(line)["user_id"], partitions)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return -1


def split_in_three(lines: Lines, seed: int) -> list[Lines]:
    """Split a log at two random positions."""
    first, second = sorted(random.Random(seed).sample(range(1, len(lines)), 2))
    return [lines[:first], lines[first:second], lines[second:]]


def join_parts(folder: Path, parts: Sequence[Lines]) -> Path:
    """Write the parts as one log."""
    return write_log(folder / "whole.jsonl", [line for part in parts for line in part])


def settling_pages(partitions: int) -> Lines:
    """Return pages of two users of each partition in turn, ten minutes before `T`: enough for its clock to settle."""
    users: dict[int, list[str]] = {partition: [] for partition in range(partitions)}
    for user in map(str, range(100)):
        users[partition_of_line(page("r", user, T), partitions)].append(user)
    return [
        page(f"settling-{partition}-{turn}", users[partition][turn % 2], T - 600 * SECOND + turn)
        for turn in range(SETTLING_TURNS)
        for partition in range(partitions)
    ]


def late_records(live: Live) -> int:
    """Return the late records of all `aggregate` tasks, as their last frames report them."""
    topic = Topics(live.prefix).examples
    consumer = KafkaConsumer(
        bootstrap_servers=live.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    try:
        partitions = [TopicPartition(topic, number) for number in range(live.partitions)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        late_by_partition = dict.fromkeys(partitions, 0)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, records in consumer.poll(timeout_ms=500).items():
                late_by_partition[partition] = decode_frame(records[-1].value, topic).late_records
        return sum(late_by_partition.values())
    finally:
        consumer.close()
