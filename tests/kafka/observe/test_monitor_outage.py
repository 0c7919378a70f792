"""A broker that is away for a minute: the monitor says so, goes on showing what it knows, and recovers by itself."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.kafka_broker import Broker, kafka_home
from tests.kafka.live import Live
from tests.kafka.monitoring import Monitor, wait_for
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


@pytest.mark.long
def test_a_minute_without_kafka_is_said_and_passes(own: Broker, tmp_path: Path) -> None:
    live = Live(own.address, "", tmp_path)
    try:
        live.create()
        live.load(simulated(tmp_path, pages=600))
        live.stream(1, "--flush")
        monitor = Monitor(live).start()
        # It publishes what it has learned, and stays.
        trainer = live.start_train("--cut-every", "0")
        wait_for((live.folder / "train" / "report.json").exists)
        wait_for(lambda: monitor.pages() > 0, monitor.said)
        before = monitor.now()["models"]
        own.crash()
        wait_for(lambda: monitor.now()["standing"] == "waiting for Kafka", monitor.said)
        time.sleep(AWAY)
        assert monitor.now()["models"] == before
        assert f"{own.address}: waiting for Kafka; its client says: " in monitor.said()
        assert len(monitor.said().splitlines()) < 20
        own.start()
        wait_for(lambda: monitor.now()["standing"] == "reading", monitor.said)
        # The trainer is heard again, with nothing new to say.
        wait_for(lambda: bool(monitor.now()["sources"][0]["alive"]), monitor.said)
        live.ask_to_stop(trainer)
        live.ended(trainer)
        live.ended(live.start_train("--until-end", "--flush"))
        monitor.wait_for_pages(report_of(live)["pages"])
        assert_shows_report(monitor, report_of(live))
        # A monitor that is asked to end while Kafka is away ends.
        own.crash()
        wait_for(lambda: monitor.now()["standing"] == "waiting for Kafka", monitor.said)
        assert monitor.process is not None
        live.ask_to_stop(monitor.process)
        monitor.ended()
    finally:
        live.kill_all()


def test_a_monitor_that_is_started_without_kafka_says_so_in_one_line(tmp_path: Path) -> None:
    monitor = Monitor(Live("127.0.0.1:1", "", tmp_path)).start("--wait", "1")
    assert "127.0.0.1:1: no answer from Kafka in 1 s" in monitor.ended(code=1)
