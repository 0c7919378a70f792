"""What the doctor says of the events, from frames and records that are made by hand."""

import time
from typing import NamedTuple

from kafka import TopicPartition

from prectr.ops.doctor.broker.flow import check_flow
from prectr.ops.doctor.findings import Finding
from prectr.stream.join.event_clock import MAX_WATERMARK
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.ordering.frames import SourceProgress, encode_frames
from tests.kit.stages.events import page

HOUR = 3_600_000
NOW = round(time.time() * 1000)
TOPICS = Topics("")


class Record(NamedTuple):
    value: bytes | None
    offset: int = 0


def outcomes(pages: int, rejected: int = 0, clicks: int = 0, orphans: int = 0) -> Outcomes:
    return Outcomes(
        PageOutcomes(received=pages, dead_letter=rejected, open=pages - rejected),
        ClickOutcomes(received=clicks, orphan=orphans, joined=clicks - orphans),
    )


def frame(source: int, found: Outcomes, watermark: int = NOW - 60_000) -> Record:
    progress = SourceProgress(watermark=watermark, outcomes={source: found})
    return Record(encode_frames(source, 0, [], progress)[0])


def findings(frames: list[Record], events: list[Record] | None = None) -> dict[str, Finding]:
    newest = {TopicPartition(TOPICS.joined_pages, 0): frames, TopicPartition(TOPICS.events, 0): events or []}
    return {finding.name: finding for finding in check_flow(newest, TOPICS)}


def test_without_frames_nothing_is_judged() -> None:
    assert findings([])["events"].severity == "ok"
    # What somebody else writes there is the business of the tasks.
    assert findings([Record(b"{}"), Record(None)])["events"].severity == "ok"


def test_a_healthy_system_has_one_line() -> None:
    found = findings([frame(0, outcomes(1_000, 10, 100, 5)), frame(0, outcomes(2_000, 20, 200, 10))])
    assert [(name, finding.severity) for name, finding in found.items()] == [("events", "ok")]
    assert found["events"].observed == "10 of the last 1,100 are rejected"


def test_rejected_events_of_late_are_an_error_although_the_past_was_well() -> None:
    found = findings([frame(0, outcomes(100_000, 10)), frame(0, outcomes(100_500, 505)), frame(1, outcomes(7))])
    assert found["events"].severity == "error"
    assert found["events"].observed == "495 of the last 500 are rejected"
    assert "prectr dlq list" in found["events"].advice


def test_with_few_events_of_late_the_whole_log_counts() -> None:
    found = findings([frame(0, outcomes(900, 800)), frame(0, outcomes(901, 801))])
    assert found["events"].observed == "801 of 901 since the start of the log are rejected"
    assert found["events"].severity == "error"


def test_clicks_that_find_no_page_are_counted_by_outcome() -> None:
    found = findings([frame(0, outcomes(10, clicks=100, orphans=3)), frame(0, outcomes(20, clicks=200, orphans=90))])
    assert found["clicks"].severity == "warning"
    assert found["clicks"].observed == "87 of the last 100 are not joined to a page (87 orphan)"


def test_a_partition_of_the_future_is_an_error_but_not_a_log_that_has_ended() -> None:
    found = findings([frame(0, outcomes(1), NOW + 30 * 24 * HOUR + 13 * HOUR), frame(1, outcomes(1), MAX_WATERMARK)])
    assert found["search-events partition 0"].severity == "error"
    assert "30 d 1" in found["search-events partition 0"].observed
    assert "search-events partition 1" not in found


def test_events_that_are_older_than_the_partition_are_a_warning() -> None:
    old = [Record(page(f"r{n}", "u", NOW - 5 * HOUR)) for n in range(3)]
    found = findings([frame(0, outcomes(1), NOW - HOUR)], old)
    assert found["search-events partition 0"].severity == "warning"
    assert "4 h behind its watermark" in found["search-events partition 0"].observed
    fresh = [*old, Record(page("r9", "u", NOW - HOUR))]
    assert "search-events partition 0" not in findings([frame(0, outcomes(1), NOW - HOUR)], fresh)
