"""Events in another partition than that of their user are noticed, against Kafka's own partitioner."""

import logging

import pytest
from kafka.partitioner.default import murmur2

from prectr.stream.events.event_batch import EventBatch
from prectr.stream.events.misplaced_events import MisplacedEvents
from tests.kit.stages.events import T, page

PARTITIONS = 4


def partition_of(user: str) -> int:
    return int((murmur2(user.encode()) & 0x7FFFFFFF) % PARTITIONS)


def test_only_events_of_other_partitions_are_counted_and_the_first_is_told(caplog: pytest.LogCaptureFixture) -> None:
    users = [f"u{number}" for number in range(640)]
    batch = EventBatch([page(f"r-{user}", user, T) for user in users], range(100, 740))
    looked_at = users[::64]
    for partition in range(PARTITIONS):
        caplog.clear()
        misplaced = MisplacedEvents("search-events", partition, PARTITIONS)
        misplaced.look_at(batch)
        others = [number for number, user in enumerate(looked_at) if partition_of(user) != partition]
        assert misplaced.count == len(others)
        (told,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
        assert f"search-events partition {partition} offset {100 + 64 * others[0]}" in told
        assert users[0] not in told.split()


def test_a_partition_of_its_own_users_and_of_invalid_lines_is_right(caplog: pytest.LogCaptureFixture) -> None:
    users = [user for user in (f"u{number}" for number in range(500)) if partition_of(user) == 2]
    misplaced = MisplacedEvents("search-events", 2, PARTITIONS)
    for user in users:
        misplaced.look_at(EventBatch([page(f"r-{user}", user, T), b"{"], [1, 2]))
        misplaced.look_at(EventBatch([b"{"], [3]))
    assert misplaced.count == 0
    assert not caplog.records
