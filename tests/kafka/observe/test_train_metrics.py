"""A trainer that runs on can be watched: its report and its lines say how far it is, and what it waits for."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.example_reader import ExampleReader
from testkit.kafka_broker import Broker, kafka_home
from tests.kafka.live import Live, replay_log
from tests.kafka.worlds import simulated

pytestmark = pytest.mark.usefixtures("broker")
_SECONDS = 150


def test_the_report_and_logs_of_a_running_trainer_follow_it(live: Live, tmp_path: Path) -> None:
    world = simulated(tmp_path, pages=600)
    expected = replay_log(tmp_path, world)
    live.create()
    trainer = live.start_train("--checkpoint-interval", "0")
    _wait(lambda: "waiting: the stages have committed nothing new" in live.stderr_of(trainer))
    assert not (live.folder / "train" / "report.json").exists()
    live.load(world)
    live.stream(1, "--flush")
    line = re.compile(r"(\d+) pages, lr AUC (0\.\d+) GAUC (0\.\d+), waiting: the stages have committed nothing new")
    _wait(lambda: line.search(live.stderr_of(trainer)) is not None)
    found = line.search(live.stderr_of(trainer))
    assert found is not None
    report = json.loads((live.folder / "train" / "report.json").read_bytes())
    assert found.groups() == (f"{len(expected.examples)}", f"{report['auc']:.4f}", f"{report['gauc']:.4f}")
    # Those of the open batch have come and are not measured yet.
    assert len(expected.examples) - 16 < report["pages"] <= len(expected.examples)
    live.request_stop(trainer)
    live.wait_for_end(trainer)
    assert live.train_and_read("--flush") == expected


def test_a_broker_that_has_gone_is_what_a_reader_waits_for(tmp_path: Path) -> None:
    home = kafka_home()
    assert home is not None
    gone = Broker(home, tmp_path / "gone")
    gone.start()
    try:
        Live(gone.address, "", tmp_path).create()
        reader = ExampleReader(Connection(gone.address), Topics(""))
        assert reader.poll().examples == []
        assert reader.waiting_reason() == "the stages have committed nothing new"
    finally:
        gone.stop()
    assert reader.waiting_reason() == "Kafka does not answer"
    reader.close()


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)
