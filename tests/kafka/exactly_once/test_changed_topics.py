"""A topic that changes while the system reads it is told, by name, and nothing is repeated in silence."""

import time
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import NewTopic

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from testkit.command import prectr, read_written_examples, write_log
from tests.kafka.live import Live
from tests.kit.stages.events import T, click, page

WAIT = 60.0


def events(start: int, count: int) -> list[bytes]:
    return [
        line
        for n in range(start, start + count)
        for line in (page(f"r{n}", f"u{n}", T + n * 9000), click(f"r{n}", f"u{n}", T + n * 9000 + 10))
    ]


@pytest.fixture
def running(live: Live, tmp_path: Path) -> Live:
    """A system whose log of 100 pages has been read, and which keeps running."""
    live.create()
    live.load(write_log(tmp_path / "first.jsonl", events(0, 100)))
    live.stream(1)
    return live


def recreate(live: Live, topic: str) -> None:
    connection = Connection(live.bootstrap)
    connection.call_admin(lambda admin: admin.delete_topics([topic]))
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            connection.call_admin(lambda admin: admin.create_topics([NewTopic(topic, live.partitions, 1)]))
        except Exception:  # noqa: BLE001 (the deletion may not be over yet)
            time.sleep(0.05)
            continue
        return
    raise AssertionError("the topic cannot be created again")


@pytest.mark.parametrize("count", [10, 400])
def test_a_topic_that_is_recreated_under_a_running_process(running: Live, tmp_path: Path, count: int) -> None:
    topic = f"{running.prefix}search-events"
    before = read_written_examples(running.examples())
    process = running.start_stream()
    running.wait_for_log(process, "open at offset")
    recreate(running, topic)
    running.load(write_log(tmp_path / "second.jsonl", events(1000, count)))
    error = running.wait_for_end(process, 1)
    assert f"topic {topic} was deleted and recreated" in error
    after = prectr(
        *("stream", "--bootstrap", running.bootstrap, "--topic-prefix", running.prefix),
        *("--group-prefix", running.prefix, "--state-dir", running.state_dir("1"), "--until-end"),
    )
    assert after.returncode == 1
    assert "another system" in after.stderr or "recreated" in after.stderr
    assert read_written_examples(running.examples()) == before


def test_partitions_that_are_added_under_a_running_process(running: Live) -> None:
    topic = f"{running.prefix}search-events"
    process = running.start_stream()
    running.wait_for_log(process, "open at offset")
    Connection(running.bootstrap).call_admin(lambda admin: admin.create_partitions({topic: 6}))
    assert f"topic {topic} has 6 partitions, and had 3" in running.wait_for_end(process, 1)


def test_examples_that_are_recreated_under_a_running_trainer(running: Live) -> None:
    topic = f"{running.prefix}training-examples"
    process = running.start_train()
    running.wait_for_log(process, "waiting: ")
    recreate(running, topic)
    assert f"topic {topic} was deleted and recreated" in running.wait_for_end(process, 1)


def test_every_codec_of_a_producer_is_read(live: Live) -> None:
    live.create()
    for number, codec in enumerate(["snappy", "zstd", "gzip", "lz4"]):
        producer = KafkaProducer(bootstrap_servers=live.bootstrap, compression_type=codec)
        for event in events(number * 10, 10):
            producer.send(f"{live.prefix}search-events", event, partition=0)
        producer.close()
    live.stream(1, "--flush")
    topic = f"{live.prefix}dead-letters"
    assert sum(fetch_end_offsets(Connection(live.bootstrap), topic)) == 0
    assert live.examples().exists()
