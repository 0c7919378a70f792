"""What `prectr top` says is wrong: one case of each, and a healthy system of which it says nothing."""

from collections.abc import Iterator
from itertools import count

import pytest

from prectr.ops.top.poller import Poller
from tests.kit.observe.top import UNREACHABLE_URL, TextServer, table_row
from tests.ops.monitor.test_top import text_of

NOW = 1_790_000_000.0
LABELS = 'stage="join",partition="0"'


def exposition(
    *, unreachable: float = 0, watermark: float = NOW - 120, pages: int = 0, clicks: int = 0, unreadable: int = 0,
    rejected: int = 0, orphans: int = 0,
) -> str:  # fmt: skip
    return f"""
prectr_broker_unreachable_seconds {unreachable}
prectr_watermark_timestamp_seconds{{{LABELS}}} {watermark}
prectr_events_total{{{LABELS},type="page"}} {pages}
prectr_events_total{{{LABELS},type="click"}} {clicks}
prectr_events_total{{{LABELS},type="unreadable"}} {unreadable}
prectr_pages_total{{{LABELS},outcome="dead_letter"}} {rejected}
prectr_clicks_total{{{LABELS},outcome="orphan"}} {orphans}
"""


@pytest.fixture
def server() -> Iterator[TextServer]:
    with TextServer(exposition()) as server:
        yield server


def problems_after(server: TextServer, *texts: str, seconds: float = 10.0) -> list[str]:
    """The problems at the last of several polls, each so many seconds after the one before."""
    times = count()
    poller = Poller([server.url], UNREACHABLE_URL, explicit=True, clock=lambda: NOW + seconds * next(times))
    for text in texts:
        server.text = text
        update = poller.poll()
        assert all(f"✗ {problem}" in text_of(update, width=200) for problem in update.problems)
    return update.problems


def test_a_healthy_system_has_none(server: TextServer) -> None:
    before, after = exposition(pages=100, clicks=10), exposition(pages=200, clicks=20, orphans=1, unreadable=1)
    assert problems_after(server, before, after) == []


def test_kafka_that_does_not_answer_is_the_first_and_explains_the_silence(server: TextServer) -> None:
    away = exposition(pages=100, unreachable=75)
    (problem,) = problems_after(server, away, away, seconds=90)
    assert problem == "Kafka has not answered for 1 min 15 s: everything waits for it"


def test_a_partition_of_the_future_is_named_but_not_a_log_that_has_ended(server: TextServer) -> None:
    (problem,) = problems_after(server, exposition(watermark=NOW + 7_200, pages=1))
    assert problem.startswith("partition 0 of search-events: its watermark is 2 h ahead of now")
    assert problems_after(server, exposition(watermark=4.6e15, pages=1)) == []


def test_rejected_events_and_clicks_without_a_page_are_those_of_late_not_of_the_past(server: TextServer) -> None:
    bad = exposition(pages=1_000, clicks=100, rejected=900, orphans=90)
    assert problems_after(server, bad, exposition(pages=1_100, clicks=110, rejected=901, orphans=91)) == []
    assert problems_after(server, bad, exposition(pages=1_100, clicks=110, rejected=990, orphans=99)) == [
        "82% of the events are rejected: see prectr dlq list",
        "90% of the clicks are not joined to a page",
    ]


def test_silence_is_said_after_a_minute_unless_nothing_ever_came(server: TextServer) -> None:
    some = exposition(pages=100)
    assert problems_after(server, some, some, seconds=50) == []
    assert problems_after(server, some, some, seconds=70) == ["no event has arrived for 1 min 10 s"]
    assert problems_after(server, exposition(), exposition(), seconds=70) == []


def arrivals(at: float, silence: float, lag: int = 0) -> str:
    return (
        exposition(pages=100)
        + f"""
prectr_last_event_timestamp_seconds{{{LABELS}}} {at}
prectr_longest_usual_silence_seconds{{{LABELS}}} {silence}
prectr_consumer_lag_records{{{LABELS}}} {lag}
"""
    )


def test_one_look_is_enough_to_see_a_producer_that_is_silent(server: TextServer) -> None:
    assert problems_after(server, arrivals(NOW - 100, 60)) == ["no event has arrived for 1 min 40 s"]
    assert problems_after(server, arrivals(NOW - 100, 110)) == [], "at the rate of late that is usual"
    assert problems_after(server, arrivals(NOW - 100, 60, lag=50)) == [], "newer events have not been read yet"


def test_the_age_of_the_last_event_is_shown(server: TextServer) -> None:
    server.text = arrivals(NOW - 12, 60)
    poller = Poller([server.url], UNREACHABLE_URL, explicit=True, clock=lambda: NOW)
    assert table_row(text_of(poller.poll()), "input") == "input last event 12.0 s ago"
