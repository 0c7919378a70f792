"""Errors of the libraries are logged at a limited rate, one line each, and so is their end."""

import logging
import threading
from collections.abc import Iterator

import pytest

from prectr.ops.monitor import client_log_filter as module
from prectr.ops.monitor.client_log_filter import ClientLogFilter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setenv("PRECTR_DEBUG", "")
    return clock


def test_warnings_are_limited_to_one_line_a_minute_and_their_end_is_logged(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "prectr.ops"), ClientLogFilter("h:1") as trouble:
        assert not trouble.is_failing()
        for _ in range(700):
            logging.getLogger("aiokafka.consumer").error("no connection\nto node %d", 1)
            clock.now += 0.1
        assert trouble.is_failing()
        assert caplog.messages == ["h:1: waiting for Kafka; client error: no connection to node 1"] * 2
        clock.now += 6
        assert not trouble.is_failing()
        assert not trouble.is_failing()
        assert caplog.messages[2:] == ["h:1: Kafka is available again"]
    logging.getLogger("aiokafka").warning("afterwards the library speaks for itself")
    assert len(caplog.messages) == 4


def test_small_talk_rebalances_and_what_comes_of_stopping_are_no_trouble(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "prectr.ops"), ClientLogFilter("h:1") as trouble:
        logging.getLogger("faust.producer").warning("producer buffer full")
        logging.getLogger("aiokafka").info("joined")
        logging.getLogger("aiokafka").warning("Heartbeat failed for group g because it is rebalancing")
        trouble.stopping = True
        logging.getLogger("mode.services").error("Error while stopping child")
        assert not trouble.is_failing()
    assert caplog.messages == []


def test_a_dying_library_thread_is_logged_without_a_traceback(
    clock: Clock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def die() -> None:
        raise ValueError("gone")

    with ClientLogFilter("h:1") as trouble:
        thread = threading.Thread(target=die)
        thread.start()
        thread.join()
        assert trouble.is_failing()
    assert caplog.messages == ["h:1: waiting for Kafka; client error: ValueError: gone"]
    assert "Traceback" not in capsys.readouterr().err


def test_debug_logging_shows_everything(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECTR_DEBUG", "1")
    with ClientLogFilter("h:1"):
        assert logging.getLogger("aiokafka").propagate
