"""What the doctor says of the arrival of events: a silent producer, and events in the partition of another user."""

import time
from typing import NamedTuple

import pytest
from kafka import TopicPartition

from prectr.ops.doctor.broker.arrivals import check_arrivals
from prectr.ops.doctor.findings import Finding
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.topics import Topics
from tests.kit.stages.events import T, page

TOPICS = Topics("")
PARTITIONS = 2


class Record(NamedTuple):
    timestamp: int
    value: bytes = b"{}"


def findings(*partitions: list[Record]) -> list[Finding]:
    newest = {TopicPartition(TOPICS.events, number): records for number, records in enumerate(partitions) if records}
    return list(check_arrivals(newest, TOPICS, PARTITIONS))


def arriving(every: float, silence: float, count: int = 40) -> list[Record]:
    """So many records, one every so many seconds, the last so many seconds ago."""
    end = (time.time() - silence) * 1000
    return [Record(round(end - every * 1000 * number)) for number in reversed(range(count))]


@pytest.mark.parametrize(
    ("every", "silence", "severity"),
    [
        (0.01, 45, "ok"),
        (0.01, 75, "warning"),
        (3, 75, "ok"),
        (3, 180, "warning"),
        (60, 500, "ok"),
        (60, 650, "warning"),
        (0.01, 90_000, "ok"),
    ],
)
def test_a_silence_far_longer_than_the_rate_explains_is_a_warning(every: float, silence: float, severity: str) -> None:
    """Of ten minutes always, as the alert, and of more than a day never: such a log has ended."""
    (finding,) = findings(arriving(every, silence), [])
    assert finding.severity == severity
    assert finding.observed.startswith("last event ")


def test_the_newest_event_of_all_partitions_counts() -> None:
    assert findings(arriving(0.01, 300), arriving(0.01, 3))[0].severity == "ok"


def test_without_events_there_is_no_silence() -> None:
    assert [finding.severity for finding in findings([], [])] == ["ok"]


def test_events_in_the_partition_of_another_user_are_a_warning_if_they_are_many() -> None:
    users = [f"u{number}" for number in range(40)]
    right: list[list[Record]] = [[], []]
    for user, partition in zip(users, partitions_of(users, PARTITIONS), strict=True):
        right[partition].append(Record(round(time.time() * 1000), page("r", user, T)))
    assert [finding.name for finding in findings(*right)] == ["input"]
    _, finding = findings(right[1], right[0])
    assert finding.severity == "warning"
    assert "40 of the newest 40 events are in another partition than that of their user" in finding.observed
    one_wrong = [right[0][1:], [*right[1], right[0][0]]]
    assert [finding.name for finding in findings(*one_wrong)] == ["input"]
