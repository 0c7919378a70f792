"""What a process rejected or could not join: a line a minute, of what came since the last one."""

import logging

import pytest

from prectr.ops.live.rejection_log import RejectionLog
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes
from prectr.stream.kafka.tasks.task_metrics import TaskCounts
from prectr.stream.kafka.tasks.task_status import TaskStatus


def status(
    partition: int = 0, *, orphan: int = 0, late: int = 0, dead_letters: dict[str, int] | None = None
) -> TaskStatus:
    counts = TaskCounts(
        outcomes=Outcomes(clicks=ClickOutcomes(orphan=orphan, late=late)),
        dead_letters=dead_letters or {},
        rejection_example=f"search-events partition {partition} offset 7: not_json" if dead_letters else "",
    )
    return TaskStatus(
        stage="join", partition=partition, next_offset=9, restore_remaining=0, emitted=0, watermark=None,
        snapshots=None, counts=counts,
    )  # fmt: skip


def test_a_line_a_minute_has_the_counts_since_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    log = RejectionLog(lambda: now)
    with caplog.at_level(logging.WARNING):
        # Clicks of the process that had the task before are no news.
        log.update([status(orphan=500), status(1)])
        assert caplog.records == []
        log.update([status(orphan=503, dead_letters={"not_json": 1200, "too_large": 1}), status(1)])
        for step in range(20):
            log.update([status(orphan=504 + step, dead_letters={"not_json": 1200, "too_large": 1}), status(1)])
        now += 60
        log.update([status(orphan=523, dead_letters={"not_json": 1200, "too_large": 1}), status(1, late=2)])
        now += 600
        log.update([status(orphan=523, dead_letters={"not_json": 1200, "too_large": 1}), status(1, late=2)])
    assert [record.getMessage() for record in caplog.records] == [
        "since the last such line: dead letters: 1,200 not_json, 1 too_large (such as search-events partition 0 "
        "offset 7: not_json); `prectr dlq list` lists them; clicks not joined: 3 orphan",
        "since the last such line: clicks not joined: 20 orphan, 2 late",
    ]


def test_dead_letters_of_a_task_that_was_opened_again_are_news(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = RejectionLog(lambda: now)
    with caplog.at_level(logging.WARNING):
        log.update([status(dead_letters={"not_json": 5})])
        now += 60
        log.update([status(dead_letters={"not_json": 2})])
    assert "5 not_json" in caplog.messages[0]
    assert "2 not_json" in caplog.messages[1]
