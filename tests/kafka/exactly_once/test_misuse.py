"""Misuse ends with exit code 1 or 2 and one line that has the remedy."""

import subprocess
from pathlib import Path

import pytest

from prectr.stream.kafka.client.client import Connection
from testkit.command import prectr, write_log
from testkit.kafka_broker import Broker
from tests.kafka.live import Live
from tests.kit.stages.events import T, click, page


@pytest.fixture
def small(tmp_path: Path) -> Path:
    lines = [
        line
        for n in range(20)
        for line in (page(f"r{n}", f"u{n}", T + n * 9000), click(f"r{n}", f"u{n}", T + n * 9000 + 10))
    ]
    return write_log(tmp_path / "small.jsonl", lines)


def assert_usage_error(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("prectr: ")
    assert "internal error" not in last
    for words in expected:
        assert words in last


def stream(live: Live, name: str = "1", *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    given = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, "--group-prefix", live.prefix]
    return prectr("stream", *given, "--state-dir", live.state_dir(name), "--until-end", *flags, **settings)


@pytest.mark.parametrize(
    "command",
    [
        ["topics", "create"],
        ["load", "LOG"],
        ["stream", "--state-dir", "DIR"],
        ["train", "--run-dir", "DIR"],
        ["examples", "--out", "DIR/out.jsonl"],
    ],
)
def test_no_broker(command: list[str], small: Path, tmp_path: Path) -> None:
    given = [part.replace("LOG", str(small)).replace("DIR", str(tmp_path / "dir")) for part in command]
    assert_usage_error(
        prectr(*given, "--bootstrap", "127.0.0.1:9", "--connect-timeout", "1"),
        "127.0.0.1:9",
        "no answer from Kafka in 1 s",
    )


def test_a_client_setting_that_cannot_be(tmp_path: Path) -> None:
    for text, expected in (
        ("foo = 1", "no such setting"),
        ('acks = "1"', "exactly-once processing depends on it"),
        ("a =", "not TOML"),
    ):
        (tmp_path / "client.toml").write_text(text)
        done = prectr("topics", "create", "--bootstrap", "127.0.0.1:9", "--client-config", tmp_path / "client.toml")
        assert done.returncode == 2
        assert_usage_error(done, expected)


def test_topics_that_are_missing_or_unlike(live: Live, small: Path) -> None:
    given = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix]
    assert_usage_error(stream(live), f"there is no topic {live.prefix}search-events", "prectr topics create")
    assert_usage_error(prectr("load", small, *given), f"there is no topic {live.prefix}search-events")
    assert_usage_error(prectr("train", *given, "--run-dir", live.folder / "run"), "there is no topic")
    live.create()
    assert_usage_error(prectr("topics", "create", *given, "--partitions", "4"), "has 3 partitions, not 4")
    connection = Connection(live.bootstrap)
    connection.call_admin(lambda admin: admin.delete_topics([f"{live.prefix}joined-pages"]))
    assert_usage_error(stream(live), f"there is no topic {live.prefix}joined-pages")


def test_state_of_another_system(live: Live, small: Path, broker: Broker, tmp_path: Path) -> None:
    live.create()
    live.load(small)
    assert stream(live).returncode == 0
    other = Live(broker.address, f"{live.prefix}other.", tmp_path, partitions=2)
    other.create()
    other.load(small)
    assert_usage_error(stream(other), "the state is of another system", "search-events", "--state-dir")
    assert_usage_error(stream(live, "1", PRECTR_ATTRIBUTION_WINDOW="600"), "attribution_window is 600", "was 120")
    given = ["--bootstrap", live.bootstrap, "--topic-prefix", other.prefix, "--group-prefix", live.prefix]
    done = prectr("stream", *given, "--state-dir", live.state_dir("9"), "--until-end")
    assert_usage_error(done, f"group {live.prefix}join has read {live.prefix}search-events", "--group-prefix")
    given = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, "--group-prefix", "new."]
    done = prectr("stream", *given, "--state-dir", live.state_dir("1"), "--until-end")
    assert_usage_error(done, "has committed nothing")


def test_events_after_a_flush(live: Live, small: Path) -> None:
    live.create()
    live.load(small)
    assert stream(live, "1", "--flush").returncode == 0
    live.load(small)
    assert_usage_error(stream(live), "came after the flush that closed every page", "--topic-prefix")


def test_offsets_gone_from_the_log(live: Live, small: Path) -> None:
    live.create()
    live.load(small)
    assert stream(live).returncode == 0
    connection = Connection(live.bootstrap)
    from kafka import TopicPartition

    partition = TopicPartition(f"{live.prefix}search-events", 0)
    connection.call_admin(lambda admin: admin.delete_records({partition: 3}))
    assert_usage_error(stream(live, "fresh"), "offset 0 is next, but the log begins at 3", "Nothing is skipped")
    assert stream(live).returncode == 0


@pytest.mark.parametrize("value", [b"\x09rubbish", b"\x02rubbish", b""])
def test_a_frame_that_cannot_be_read(value: bytes, live: Live) -> None:
    live.create()
    connection = Connection(live.bootstrap)
    producer = connection.producer()
    producer.send(f"{live.prefix}joined-pages", value=value, partition=1).get(10)
    producer.send(f"{live.prefix}training-examples", value=value, partition=1).get(10)
    producer.close()
    where = "partition 1 offset 0"
    assert_usage_error(stream(live), f"{live.prefix}joined-pages {where}", "frame")
    given = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix]
    out = live.folder / "out.jsonl"
    assert_usage_error(
        prectr("examples", *given, "--until-end", "--out", out), f"{live.prefix}training-examples {where}"
    )
