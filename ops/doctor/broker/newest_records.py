"""The last records of each partition, as several checks look at them."""

import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from kafka import TopicPartition

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics

NEWEST_OFFSETS: Final = 40
"""Offsets at the end of a partition that are read; every second one may be the marker of a transaction."""
_READ_TIMEOUT: Final = 4.0

NewestRecords: TypeAlias = dict[TopicPartition, list[Any]]
"""By partition, in the order of their offsets; only of partitions that have some."""


def fetch_newest_records(connection: Connection, topics: Topics, partitions: int) -> NewestRecords:
    """Read the last records of the topics of the pipeline, committed or not."""
    names: Sequence[str] = (topics.events, topics.joined_pages, topics.examples)
    wanted = [TopicPartition(name, number) for name in names for number in range(partitions)]
    consumer = connection.consumer(group_id=None, isolation_level="read_uncommitted", max_poll_records=1_000)
    found: NewestRecords = {}
    try:
        with connection.translate_errors():
            first, ends = consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)
            unread = {each for each in wanted if ends[each] > first[each]}
            consumer.assign(sorted(unread))
            for each in unread:
                consumer.seek(each, max(first[each], ends[each] - NEWEST_OFFSETS))
            deadline = time.monotonic() + _READ_TIMEOUT
            while unread and time.monotonic() < deadline:
                for each, records in consumer.poll(timeout_ms=200).items():
                    found.setdefault(each, []).extend(records)
                unread = {each for each in unread if consumer.position(each) < ends[each]}
    finally:
        consumer.close()
    return found
