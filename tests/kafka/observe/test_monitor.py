"""The monitor shows what the trainers report, whichever process is killed, and rejects what it cannot read."""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import TopicPartition

from prectr.model.quality.record import RECORD_VERSION
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.quality_producer import PARTITION
from tests.kafka.live import Live
from tests.kafka.monitoring import MonitorProcess, wait_for
from tests.kafka.worlds import simulated

pytestmark = pytest.mark.usefixtures("broker")
FIGURES = ("pages", "impressions", "clicks", "auc", "gauc", "log_loss", "normalized_entropy", "calibration")
METRICS = {
    "auc": "prectr_auc",
    "gauc": "prectr_gauc",
    "log_loss": "prectr_log_loss",
    "normalized_entropy": "prectr_normalized_entropy",
    "calibration": "prectr_calibration_ratio",
}
SUMS = {
    "pages": "prectr_scored_pages_total",
    "impressions": "prectr_scored_impressions_total",
    "clicks": "prectr_scored_clicks_total",
}


def report_of(live: Live, run: str = "train") -> dict[str, Any]:
    report: dict[str, Any] = json.loads((live.folder / run / "report.json").read_bytes())
    return report


def assert_shows_report(monitor: MonitorProcess, report: dict[str, Any]) -> None:
    """The same numbers: sketches are whole numbers that add, and all of them are there."""
    (model,) = monitor.quality()["models"]
    whole = model["windows"]["run"]
    samples = monitor.samples()
    for segment in ("all", "new", "low", "active"):
        expected = report if segment == "all" else report["segments"][segment]
        assert {name: whole[segment][name] for name in FIGURES[3:]} == {name: expected[name] for name in FIGURES[3:]}
        labels = {("model", "lr"), ("segment", segment)}
        for window, figures in model["windows"].items():
            for name, metric in METRICS.items():
                shown = samples.get((metric, frozenset(labels | {("window", window)})))
                assert shown == figures[segment][name]
        for name, metric in SUMS.items():
            assert samples[metric, frozenset(labels)] == whole[segment][name]
    assert whole["all"]["pages"] == report["pages"]


def test_the_monitor_matches_the_report_to_the_last_bit(live: Live, tmp_path: Path) -> None:
    live.create()
    monitor = MonitorProcess(live).start()
    wait_for(lambda: monitor.quality()["status"] == "reading", monitor.log_text)
    # Before any sketch there is nothing to show, which the page states.
    empty = monitor.quality()
    assert (empty["models"], empty["sources"], empty["last_checkpoint_time"]) == ([], [], None)
    assert "No trainer has published yet" in monitor.get("/")
    live.load(simulated(tmp_path, pages=900))
    live.stream(1, "--flush")
    live.wait_for_end(live.start_train("--until-end", "--flush", "--checkpoint-interval", "0"))
    monitor.wait_for_pages(report_of(live)["pages"])
    assert_shows_report(monitor, report_of(live))
    (source,) = monitor.quality()["sources"]
    assert source["alive"]
    assert source["checkpoint_age_seconds"] < 150
    assert monitor.process is not None
    monitor.process.send_signal(signal.SIGTERM)
    monitor.wait_for_end()


def test_kill_9_of_monitor_and_trainer_loses_no_sketch_and_counts_none_twice(live: Live, tmp_path: Path) -> None:
    live.create()
    live.load(simulated(tmp_path, pages=3_000))
    live.stream(1, "--flush")
    monitor = MonitorProcess(live).start()
    seen = 0
    # The first has published something that has arrived; the others die on the way, with as much or less in the topic.
    for crash in (("published", 2), ("checkpoint", 1), ("published", 1)):
        live.wait_for_end(live.start_train("--checkpoint-interval", "0", crash=crash), code=-9)
        wait_for(lambda: monitor.pages() > 0)
        assert monitor.pages() >= seen
        seen = monitor.pages()
        assert monitor.process is not None
        live.kill(monitor.process)
        monitor.start()
    live.wait_for_end(live.start_train("--until-end", "--flush", "--checkpoint-interval", "0"))
    monitor.wait_for_pages(report_of(live)["pages"])
    # Once more, with nothing new to read, then from the changelog alone.
    live.kill(monitor.process)
    monitor.start()
    monitor.wait_for_pages(report_of(live)["pages"])
    assert_shows_report(monitor, report_of(live))
    live.kill(monitor.process)
    other = MonitorProcess(live, "elsewhere").start()
    other.wait_for_pages(report_of(live)["pages"])
    assert_shows_report(other, report_of(live))
    assert "Traceback" not in monitor.log_text() + other.log_text()


def send(live: Live, *records: tuple[bytes | None, bytes]) -> None:
    producer = Connection(live.bootstrap).producer(compression_type="gzip")
    for key, value in records:
        producer.send(Topics(live.prefix).quality, key=key, value=value, partition=PARTITION)
    producer.flush()
    producer.close()


def last_record(live: Live) -> tuple[bytes, bytes]:
    """The last record of the topic, as it is."""
    consumer = Connection(live.bootstrap).consumer(group_id=None)
    partition = TopicPartition(Topics(live.prefix).quality, PARTITION)
    consumer.assign([partition])
    consumer.seek(partition, consumer.end_offsets([partition])[partition] - 1)
    found: list[Any] = []
    while not found:
        found = consumer.poll(timeout_ms=200).get(partition, [])
    consumer.close()
    return found[-1].key, found[-1].value


def test_records_of_another_version_and_corrupt_ones_are_rejected_and_stop_nothing(live: Live, tmp_path: Path) -> None:
    live.create()
    live.load(simulated(tmp_path, pages=300))
    live.stream(1, "--flush")
    live.wait_for_end(live.start_train("--until-end", "--flush"))
    key, value = last_record(live)
    newer = msgspec.msgpack.decode(value)
    newer[0] = RECORD_VERSION + 1
    send(
        live,
        (key, msgspec.msgpack.encode(newer)),
        (key, b""),
        (b"other", value),
        (None, value[:40]),
        (key, b"\xff" * 100),
        (key, value),
    )
    monitor = MonitorProcess(live).start()
    monitor.wait_for_pages(report_of(live)["pages"])
    wait_for(lambda: monitor.quality()["rejected"] == {"version": 1, "corrupt": 4}, monitor.log_text)
    assert_shows_report(monitor, report_of(live))
    samples = monitor.samples()
    assert samples["prectr_quality_records_rejected_total", frozenset({("reason", "version")})] == 1
    assert samples["prectr_quality_records_rejected_total", frozenset({("reason", "corrupt")})] == 4
    assert f"rejected: version {RECORD_VERSION + 1}, this program reads version {RECORD_VERSION}" in monitor.log_text()
    assert "4 corrupt, 1 version" in monitor.get("/")


def test_a_faust_crash_is_reported_and_faust_is_restarted_until_it_can_run(live: Live, tmp_path: Path) -> None:
    """A record in a codec whose library the monitor has not, until an operator removes it."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "cramjam.py").write_text("raise ImportError\n")
    live.create()
    live.load(simulated(tmp_path, pages=300))
    live.stream(1, "--flush")
    monitor = MonitorProcess(live).start(PYTHONPATH=str(hidden))
    wait_for(lambda: monitor.quality()["status"] == "reading", monitor.log_text)
    connection, topic = Connection(live.bootstrap), Topics(live.prefix).quality
    producer = connection.producer()
    sent = producer.send(topic, key=b"k", value=b"v" * 1000, partition=PARTITION).get(30)
    producer.close()
    wait_for(lambda: str(monitor.quality()["status"]).startswith("restarting: UnsupportedCodecError"), monitor.log_text)
    assert "reading failed (UnsupportedCodecError" in monitor.log_text()
    connection.call_admin(lambda admin: admin.delete_records({TopicPartition(topic, PARTITION): sent.offset + 1}))
    live.wait_for_end(live.start_train("--until-end", "--flush"))
    monitor.wait_for_pages(report_of(live)["pages"])
    assert_shows_report(monitor, report_of(live))
    assert "Traceback" not in monitor.log_text()


def test_a_second_monitor_stands_by_shows_nothing_and_takes_over(live: Live, tmp_path: Path) -> None:
    live.create()
    live.load(simulated(tmp_path, pages=300))
    live.stream(1, "--flush")
    first = MonitorProcess(live, "first").start()
    wait_for(lambda: first.quality()["status"] == "reading", first.log_text)
    second = MonitorProcess(live, "second").start()
    both = lambda: sorted(monitor.quality()["status"] for monitor in (first, second))  # noqa: E731
    wait_for(lambda: both() == ["reading", "standby: another monitor is reading"])
    reads, stands_by = sorted((first, second), key=lambda monitor: str(monitor.quality()["status"]))
    live.wait_for_end(live.start_train("--until-end", "--flush"))
    reads.wait_for_pages(report_of(live)["pages"])
    assert stands_by.quality()["models"] == []
    assert not [name for name, _ in stands_by.samples() if name == "prectr_auc"]
    assert reads.process is not None
    live.kill(reads.process)
    stands_by.wait_for_pages(report_of(live)["pages"])
    assert_shows_report(stands_by, report_of(live))


@pytest.mark.parametrize("flag", ["--port", "--metrics-port"])
def test_a_port_in_use_is_one_clear_line(live: Live, flag: str) -> None:
    live.create()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        log = MonitorProcess(live).start(flag, str(port)).wait_for_end(code=1)
    assert f"on 127.0.0.1:{port}: Address already in use; a server of process {os.getpid()} (" in log
    assert f"choose another {flag}" in log


def test_missing_topics_and_a_folder_in_use_are_clear_lines(live: Live) -> None:
    log = MonitorProcess(live, "early").start().wait_for_end(code=1)
    assert f"there is no topic {live.prefix}model-quality: create the topics with `prectr topics create`" in log
    live.create()
    MonitorProcess(live).start().get("/healthz")
    assert "another process is using it" in MonitorProcess(live).start().wait_for_end(code=1)
