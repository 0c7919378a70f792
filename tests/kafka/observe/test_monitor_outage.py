"""A broker outage of a minute: the monitor reports it, keeps showing what it knows, and recovers automatically."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.kafka_broker import Broker, kafka_home
from tests.kafka.live import Live
from tests.kafka.monitoring import MonitorProcess, wait_for
from tests.kafka.observe.test_monitor import assert_shows_report, report_of
from tests.kafka.worlds import simulated

pytestmark = pytest.mark.usefixtures("broker")
AWAY = 65.0
"""Seconds: longer than any session or request of Faust's client lasts."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A broker that no other test needs."""
    home = kafka_home()
    assert home is not None
    broker = Broker(home, tmp_path / "kafka")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def test_a_minute_without_kafka_is_said_and_passes(own: Broker, tmp_path: Path) -> None:
    live = Live(own.address, "", tmp_path)
    try:
        live.create()
        live.load(simulated(tmp_path, pages=600))
        live.stream(1, "--flush")
        monitor = MonitorProcess(live).start()
        # It publishes what it has learned, and stays.
        trainer = live.start_train("--checkpoint-interval", "0")
        wait_for(lambda: "waiting: the stages have committed nothing new" in live.stderr_of(trainer))
        monitor.wait_for_pages(report_of(live)["pages"])
        before = monitor.quality()["models"]
        own.kill()
        wait_for(lambda: monitor.quality()["status"] == "waiting for Kafka", monitor.log_text)
        time.sleep(AWAY)
        assert monitor.quality()["models"] == before
        assert f"{own.address}: waiting for Kafka; client error: " in monitor.log_text()
        assert len(monitor.log_text().splitlines()) < 20
        own.start()
        wait_for(lambda: monitor.quality()["status"] == "reading", monitor.log_text)
        # The trainer's records arrive again, without news.
        wait_for(lambda: bool(monitor.quality()["sources"][0]["alive"]), monitor.log_text)
        live.request_stop(trainer)
        live.wait_for_end(trainer)
        live.wait_for_end(live.start_train("--until-end", "--flush"))
        monitor.wait_for_pages(report_of(live)["pages"])
        assert_shows_report(monitor, report_of(live))
        # A monitor that is requested to stop while Kafka is unavailable stops.
        own.kill()
        wait_for(lambda: monitor.quality()["status"] == "waiting for Kafka", monitor.log_text)
        assert monitor.process is not None
        live.request_stop(monitor.process)
        monitor.wait_for_end()
    finally:
        live.kill_all()


def test_a_monitor_that_is_started_without_kafka_says_so_in_one_line(tmp_path: Path) -> None:
    monitor = MonitorProcess(Live("127.0.0.1:1", "", tmp_path)).start("--connect-timeout", "1")
    assert "127.0.0.1:1: no answer from Kafka in 1 s" in monitor.wait_for_end(code=1)
