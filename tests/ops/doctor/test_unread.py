"""What the doctor says of records that wait: how many, whether anybody reads them, and whether anybody can."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from prectr.ops.doctor.broker import progress
from prectr.ops.doctor.broker.groups import GroupOffsets, PartitionOffsets, check_groups
from prectr.ops.doctor.broker.unread import check_frames, unread_records
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.transactions.committed_offsets import CommitMetadata
from prectr.stream.ordering.frames import SourceProgress, encode_frames

TOPICS = Topics("")
TOPIC_ID = "topic-1"


class Record(NamedTuple):
    offset: int
    value: bytes


def frame(offset: int, *records: bytes) -> Record:
    return Record(offset, encode_frames(0, 0, records, SourceProgress(watermark=1_700_000_000_000))[0])


@pytest.mark.parametrize(("position", "unread"), [(10, 0), (9, 0), (8, 1), (5, 4), (0, 10)])
def test_markers_of_transactions_do_not_wait_and_what_is_not_looked_at_does(position: int, unread: int) -> None:
    """The log ends at 10, and its last record is a marker."""
    newest = [Record(offset, b"{}") for offset in range(2, 9)]
    assert unread_records(position, 10, newest, are_frames=False) == unread


def test_frames_that_only_tell_the_time_are_no_work() -> None:
    assert unread_records(1, 4, [frame(0, b"\x01"), frame(1), frame(2)], are_frames=True) == 0
    assert unread_records(1, 4, [frame(0), frame(1, b"\x01"), frame(2)], are_frames=True) == 1
    assert unread_records(1, 4, [frame(0), Record(1, b"forged"), frame(2)], are_frames=True) == 1


class _Groups(Connection):
    """A cluster whose groups have so many members."""

    members = 0

    def call_admin(self, request: Any) -> Mapping[str, Any]:
        return {
            name: {"members": [{"client_host": "/h"}] * self.members, "group_state": "Stable"}
            for name in ("join", "aggregate")
        }


def members_of_join(committed: int | None, unread: int, has_output: bool = True) -> tuple[str, str]:
    found = None if committed is None else (committed, CommitMetadata(TOPIC_ID))
    join = [PartitionOffsets(TopicPartition("search-events", 0), 0, 100, found, unread=unread)]
    aggregate = [PartitionOffsets(TopicPartition("joined-pages", 0), 0, 0, None)]
    offsets = GroupOffsets("c", {"join": TOPIC_ID, "aggregate": "t2"}, {"join": join, "aggregate": aggregate}, [(0, 0)])
    finding = next(check_groups(_Groups("h:1"), "", offsets))
    return finding.severity, finding.observed


def test_a_group_without_members_is_an_error_only_where_records_wait_for_it() -> None:
    severity, observed = members_of_join(50, 49)
    assert severity == "error"
    assert observed == "has no members, and 49 records of search-events wait for it"
    assert members_of_join(99, 0)[0] == "warning"


def test_a_system_that_has_not_started_yet_is_no_problem() -> None:
    severity, observed = members_of_join(None, 100)
    assert severity == "ok"
    assert "not started yet" in observed


def test_a_record_that_no_task_has_written_is_named_by_its_place() -> None:
    def found(topic: str, records: Sequence[Any]) -> list[str]:
        findings = list(check_frames({TopicPartition(topic, 2): list(records)}, TOPICS, 3))
        assert {finding.severity for finding in findings} <= {"error"}
        return [finding.observed for finding in findings]

    (named,) = found(TOPICS.joined_pages, [frame(16), Record(17, b"{}"), Record(18, b"{}")])
    assert named.startswith("joined-pages partition 2 offset 17: not a frame")
    assert found(TOPICS.examples, [frame(3), frame(4, b"\xc1")])[0].startswith("training-examples partition 2 offset 4")
    assert found(TOPICS.joined_pages, [frame(16)]) == found(TOPICS.events, [Record(0, b"{}")]) == []


class _Members(Connection):
    """A cluster whose groups have a member each, and have committed what `list_group_offsets` says."""

    def call_admin(self, request: Any) -> Any:
        return request(self)

    def describe_groups(self, groups: list[str]) -> Mapping[str, Any]:
        return {group: {"members": [{}]} for group in groups}

    def list_group_offsets(self, groups: list[str]) -> Mapping[str, Any]:
        return {group: {EVENTS: OffsetAndMetadata(moved_to.get(self.bootstrap, 50), "", -1)} for group in groups}


EVENTS = TopicPartition("search-events", 0)
moved_to = {"advances:1": 60}


@pytest.mark.parametrize(
    ("bootstrap", "waited", "severity"),
    [("stands:1", 30, None), ("stands:1", 90, "warning"), ("stands:1", 900, "error"), ("advances:1", 900, None)],
)
def test_a_task_that_does_not_advance_is_told_although_its_group_has_a_member(
    monkeypatch: pytest.MonkeyPatch, bootstrap: str, waited: float, severity: str | None
) -> None:
    class Waiting(NamedTuple):
        offset: int
        timestamp: float
        value: bytes = b"{}"

    waiting = {EVENTS: [Waiting(50, (time.time() - waited) * 1000)]}
    monkeypatch.setattr(progress, "fetch_next_records", lambda *_: waiting)
    monkeypatch.setattr(progress, "_SECOND_LOOK", 0.0)
    join = [PartitionOffsets(EVENTS, 0, 100, (50, CommitMetadata(TOPIC_ID)), unread=50)]
    aggregate = [PartitionOffsets(TopicPartition("joined-pages", 0), 0, 0, None)]
    offsets = GroupOffsets("c", {}, {"join": join, "aggregate": aggregate}, [(0, 0)])
    found = list(progress.check_progress(_Members(bootstrap), TOPICS, "", offsets))
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])
    if found:
        assert found[0].name == "commits of join"
        assert "partition 0 at offset 50" in found[0].observed
