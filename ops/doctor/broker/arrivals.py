"""The arrival of events: when the newest came, and whether they lie in the partitions of their users."""

import time
from collections.abc import Iterator
from typing import Final

from prectr.ops.doctor.broker.newest_records import NewestRecords
from prectr.ops.doctor.findings import Finding
from prectr.ops.report.numbers import duration
from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.ordering.arrivals import Arrivals

_ENDED: Final = 86_400.0
"""Seconds after which a silence is no news: as the alert PrectrNoInput, which asks for events within the day before."""
_MAX_MISPLACED: Final = 0.05
_MIN_EVENTS: Final = 20


def check_arrivals(newest: NewestRecords, topics: Topics, partitions: int) -> Iterator[Finding]:
    """Judge by the newest events of each partition."""
    yield _check_silence(newest, topics)
    yield from _check_partitions(newest, topics, partitions)


def _check_silence(newest: NewestRecords, topics: Topics) -> Finding:
    times = sorted(
        record.timestamp for partition, records in newest.items() if partition.topic == topics.events
        for record in records
    )  # fmt: skip
    if not times:
        return Finding("input", "ok", "no event has arrived yet")
    arrivals = Arrivals()
    for at in times:
        arrivals.observe(at, at, 1)
    silence, usual = time.time() - times[-1] / 1000, arrivals.longest_usual_silence / 1000
    observed = f"last event {duration(max(0.0, silence))} ago"
    if not usual < silence < _ENDED:
        return Finding("input", "ok", observed)
    if len(times) > 1:
        gap = (times[-1] - times[0]) / 1000 / (len(times) - 1)
        observed += f"; of the {len(times):,} events before, one came every {gap:.3g} s"
    return Finding(
        "input",
        "warning",
        observed,
        "look whether the producer runs; if a log was loaded to its end, nothing is wrong (PrectrNoInput in "
        "docs/runbook.md)",
    )


def _check_partitions(newest: NewestRecords, topics: Topics, partitions: int) -> Iterator[Finding]:
    users: list[tuple[int, str]] = []
    for partition, records in newest.items():
        if partition.topic == topics.events:
            events = decode_lines([record.value or b"" for record in records])
            users += [(partition.partition, event.user_id) for event in events if not isinstance(event, InvalidEvent)]
    expected = partitions_of([user for _, user in users], partitions)
    misplaced = sum(number != right for (number, _), right in zip(users, expected, strict=True))
    if len(users) >= _MIN_EVENTS and misplaced > _MAX_MISPLACED * len(users):
        yield Finding(
            "partitions of events",
            "warning",
            f"{misplaced:,} of the newest {len(users):,} events are in another partition than that of their user, so "
            "their clicks and pages do not meet",
            "produce with the user's id as key and Kafka's default partitioner, murmur2; see PrectrMisplacedEvents in "
            "docs/runbook.md",
        )
