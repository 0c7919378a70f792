"""What the libraries complain of is told once in a while, in one line, and that it is over."""

import logging
import threading
from collections.abc import Iterator

import pytest

from prectr.ops.monitor import client_log_filter as module
from prectr.ops.monitor.client_log_filter import Trouble


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


def test_complaints_are_one_line_in_ten_seconds_and_their_end_is_told(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ops"), Trouble("h:1") as trouble:
        assert not trouble.now()
        for _ in range(120):
            logging.getLogger("aiokafka.consumer").error("no connection\nto node %d", 1)
            clock.now += 0.1
        assert trouble.now()
        assert caplog.messages == ["h:1: waiting for Kafka; its client says: no connection to node 1"] * 2
        clock.now += 6
        assert not trouble.now()
        assert not trouble.now()
        assert caplog.messages[2:] == ["h:1: all is well again"]
    logging.getLogger("aiokafka").warning("afterwards the library speaks for itself")
    assert len(caplog.messages) == 4


def test_small_talk_rebalances_and_what_comes_of_stopping_are_no_trouble(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ops"), Trouble("h:1") as trouble:
        logging.getLogger("faust.producer").warning("producer buffer full")
        logging.getLogger("aiokafka").info("joined")
        logging.getLogger("aiokafka").warning("Heartbeat failed for group g because it is rebalancing")
        trouble.ending = True
        logging.getLogger("mode.services").error("Error while stopping child")
        assert not trouble.now()
    assert caplog.messages == []


def test_a_thread_of_the_library_that_dies_is_told_without_a_traceback(
    clock: Clock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def die() -> None:
        raise ValueError("gone")

    with Trouble("h:1") as trouble:
        thread = threading.Thread(target=die)
        thread.start()
        thread.join()
        assert trouble.now()
    assert caplog.messages == ["h:1: waiting for Kafka; its client says: ValueError: gone"]
    assert "Traceback" not in capsys.readouterr().err


def test_whoever_looks_for_a_fault_gets_all_of_it(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECTR_DEBUG", "1")
    with Trouble("h:1"):
        assert logging.getLogger("aiokafka").propagate
