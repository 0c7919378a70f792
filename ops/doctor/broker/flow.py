"""What becomes of the events: those that are rejected, clicks without a page, and partitions whose time is wrong."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from prectr.ops.doctor.broker.newest_records import NewestRecords
from prectr.ops.doctor.findings import Finding
from prectr.ops.report.numbers import duration
from prectr.state.errors import StateError
from prectr.stream.events.contract import InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.ordering.frames import decode_frame

_MAX_REJECTED: Final = 0.5
_MAX_NOT_JOINED: Final = 0.2
_MAX_LEAD: Final = 3_600.0
"""Seconds; as the alerts PrectrEventsRejected, PrectrClicksNotJoined and PrectrClockAhead."""
_MIN_RECORDS: Final = 20
"""Events of late that are enough to judge by; with fewer, all since the start of the log are."""


class _Source(NamedTuple):
    """What a `join` task has last said of itself. earlier: its outcomes in the first of the frames that were read."""

    watermark: int
    earlier: Outcomes
    outcomes: Outcomes


def check_flow(newest: NewestRecords, topics: Topics) -> Iterator[Finding]:
    """Judge by the newest frames of joined-pages and the newest events."""
    sources = _sources(newest, topics)
    if not sources:
        yield Finding("events", "ok", "unknown: the stream workers have written nothing yet")
        return
    yield from _check_outcomes(sources)
    yield from _check_times(newest, topics, {source: found.watermark for source, found in sources.items()})


def _sources(newest: NewestRecords, topics: Topics) -> dict[int, _Source]:
    sources: dict[int, _Source] = {}
    for partition, records in newest.items():
        if partition.topic != topics.joined_pages:
            continue
        for record in records:
            try:
                frame = decode_frame(record.value or b"", f"{partition.topic} {partition.partition} {record.offset}")
            except StateError:
                # Somebody else's; the tasks name it when they read it.
                continue
            outcomes = frame.outcomes.get(frame.source, Outcomes())
            known = sources.get(frame.source, _Source(frame.watermark, outcomes, outcomes))
            sources[frame.source] = _Source(
                max(known.watermark, frame.watermark),
                min(known.earlier, outcomes, key=lambda each: each.records),
                max(known.outcomes, outcomes, key=lambda each: each.records),
            )
    return sources


def _check_outcomes(sources: Mapping[int, _Source]) -> Iterator[Finding]:
    total = sum((source.outcomes for source in sources.values()), Outcomes())
    earlier = sum((source.earlier for source in sources.values()), Outcomes())
    is_recent = total.records - earlier.records >= _MIN_RECORDS
    since = earlier if is_recent else Outcomes()
    which = "the last {:,}" if is_recent else "{:,} since the start of the log"
    records = total.records - since.records
    rejected = _rejected(total) - _rejected(since)
    if records and rejected > _MAX_REJECTED * records:
        yield Finding(
            "events",
            "error",
            f"{rejected:,} of {which.format(records)} are rejected",
            "prectr dlq list has the reasons, prectr dlq show the bytes: correct the producer",
        )
    else:
        yield Finding("events", "ok", f"{rejected:,} of {which.format(records)} are rejected")
    # Those that still wait for their page have no outcome yet.
    clicks = _decided_clicks(total) - _decided_clicks(since)
    lost = _not_joined(total) - _not_joined(since)
    if clicks and lost > _MAX_NOT_JOINED * clicks:
        counts = ", ".join(
            f"{number:,} {name}"
            for name in ("orphan", "foreign", "late")
            if (number := getattr(total.clicks, name) - getattr(since.clicks, name))
        )
        yield Finding(
            "clicks",
            "warning",
            f"{lost:,} of {which.format(clicks)} are not joined to a page ({counts})",
            "see PrectrClicksNotJoined in docs/runbook.md; compare the ids of some clicks with those of their pages",
        )


def _rejected(outcomes: Outcomes) -> int:
    return outcomes.pages.dead_letter + outcomes.clicks.dead_letter + outcomes.unreadable


def _decided_clicks(outcomes: Outcomes) -> int:
    return outcomes.clicks.received - outcomes.clicks.waiting


def _not_joined(outcomes: Outcomes) -> int:
    return outcomes.clicks.orphan + outcomes.clicks.foreign + outcomes.clicks.late


def _check_times(newest: NewestRecords, topics: Topics, watermarks: Mapping[int, int]) -> Iterator[Finding]:
    now = time.time()
    for number, watermark in sorted(watermarks.items()):
        if watermark in (MIN_WATERMARK, MAX_WATERMARK):
            continue
        seconds = watermark / 1000
        name = f"{topics.events} partition {number}"
        if seconds > now + _MAX_LEAD:
            yield Finding(
                name,
                "error",
                f"its watermark is {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC, "
                f"{duration(seconds - now)} ahead of now: an event with a timestamp in the future has advanced it, and "
                "pages do not close",
                "stop the producer of such events, then see PrectrClockAhead in docs/runbook.md",
            )
            continue
        times = [
            event.ts / 1000
            for partition, records in newest.items()
            if (partition.topic, partition.partition) == (topics.events, number)
            for event in decode_lines([record.value or b"" for record in records])
            if not isinstance(event, InvalidEvent)
        ]
        if len(times) > 1 and max(times) < seconds - _MAX_LEAD:
            yield Finding(
                name,
                "warning",
                f"its newest events are {duration(seconds - max(times))} behind its watermark: "
                "their pages stay open until newer events come",
                "load a history into topics of its own (--topic-prefix); see PrectrPagesNotClosing in docs/runbook.md",
            )
