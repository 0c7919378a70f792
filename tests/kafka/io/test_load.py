"""`prectr load`: the lines that it sends, those that it rejects and reports, and how it resumes."""

import gzip
import json
import random
import re
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from prectr.state.errors import PrectrError, Remedy
from prectr.stream.events.contract import Event, InvalidEvent
from prectr.stream.events.decode import decode_lines
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.log_loader import load
from testkit.command import prectr, write_log
from testkit.kafka_broker import Broker
from testkit.oracle.contract import partition_of
from tests.kafka.io.test_dlq import given, read
from tests.kafka.live import Live
from tests.kit.stages.events import T, click, page


def loaded(live: Live, *flags: str | Path, code: int = 0) -> tuple[dict[str, Any], str]:
    out = live.folder / "load.json"
    done = prectr("load", *given(live, "--json", out, *flags))
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(out.read_bytes()), done.stdout + done.stderr


def test_every_line_is_sent_by_its_user_and_what_is_no_event_is_counted(live: Live) -> None:
    live.create()
    lines = [page("r1", "ada", T), b"{", click("r1", "ada", T + 1), b"", page("r2", "bob", T + 2), b"x" * (2 << 20)]
    result, stderr = loaded(live, write_log(live.folder / "log.jsonl", lines))
    assert (result["events"], result["lines"], result["oversized"]) == (6, 6, 0)
    assert result["invalid"] == {"not_json": 1, "blank": 1, "too_large": 1}
    assert "log.jsonl line 6 is over 1 MiB" in stderr
    assert "1 blank, 1 not_json, 1 too_large" in stderr
    found = read(live, "search-events")
    lines[5] = lines[5][: (1 << 20) + 1]
    assert sorted(record.value for record in found) == sorted(lines)
    for record in found:
        user = json.loads(record.value)["user_id"] if record.key else None
        assert record.key == (user.encode() if user else None)
        assert record.partition == (partition_of(user, live.partitions) if user else 0)


def test_what_is_loaded_is_passed_over(live: Live) -> None:
    live.create()
    events = [page(f"r{n}", f"u{n}", T + n) for n in range(3000)]
    logs = [write_log(live.folder / "a.jsonl", events[:1500]), write_log(live.folder / "b.jsonl", events[1500:])]
    result, _ = loaded(live, *logs, "--skip-lines", "1600")
    assert (result["events"], result["lines"]) == (1400, 3000)
    assert sorted(record.value for record in read(live, "search-events")) == sorted(events[1600:])
    done = prectr("load", *logs, *given(live, "--skip-lines", "3001"))
    assert (done.returncode, "1 of the lines to skip are beyond the end" in done.stderr) == (2, True)


def test_a_corrupt_log_is_loaded_up_to_the_corruption_and_says_how_to_resume(live: Live) -> None:
    live.create()
    log = live.folder / "cut.jsonl.gz"
    whole = gzip.compress(b"".join(page(f"r{n}", f"u{n}", T + n) + b"\n" for n in range(3000)))
    log.write_bytes(whole[: len(whole) // 2])
    done = prectr("load", log, *given(live))
    assert done.returncode == 1
    count = len(read(live, "search-events"))
    assert 0 < count < 3000
    assert (
        f"The first {count} lines of the log are loaded: rerun the command with that number as --skip-lines"
        in done.stderr
    )


def test_a_line_that_the_topic_rejects_is_named_and_the_rest_is_loaded(live: Live) -> None:
    live.create()
    limit = {"max.message.bytes": "20000"}
    topic = ConfigResource(ConfigResourceType.TOPIC, f"{live.prefix}search-events", configs=limit)
    Connection(live.bootstrap).call_admin(lambda admin: admin.alter_configs([topic]))
    noise = random.Random(5).randbytes(30_000).hex()
    squeezed = page("squeezed", "ada", T, query="cable", context={"a" * 10: "b"}, extra="x" * 100_000)
    lines = [page("r1", "ada", T), page("large", "ada", T, extra=noise), squeezed, page("r2", "bob", T)]
    result, stderr = loaded(live, write_log(live.folder / "log.jsonl", lines), code=1)
    assert (result["events"], result["lines"], result["oversized"]) == (3, 4, 1)
    assert result["oversized_lines"] == [{"file": str(live.folder / "log.jsonl"), "line": 2, "size": len(lines[1])}]
    assert f"log.jsonl line 2: {len(lines[1]):,} bytes exceed the maximum of {live.prefix}search-events" in stderr
    assert sorted(record.value for record in read(live, "search-events")) == sorted([lines[0], *lines[2:]])


@pytest.fixture
def impatient(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader._LOG_INTERVAL", 0.5)
    return Connection(broker.address, {"request_timeout_ms": 2000}, connect_timeout=1.0)


def test_a_broker_that_does_not_answer_for_a_while_is_waited_for(
    live: Live, broker: Broker, impatient: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    live.create()
    events = [page(f"r{n}", f"u{n}", T + n) for n in range(6000)]
    wakes: list[threading.Timer] = []
    assert broker._process is not None
    wake = partial(broker._process.send_signal, signal.SIGCONT)

    def stopped(done: int, total: int) -> None:
        if done >= total / 3 and not wakes:
            broker._process.send_signal(signal.SIGSTOP)
            wakes.append(threading.Timer(5.0, wake))
            wakes[0].start()

    try:
        log = write_log(live.folder / "log.jsonl", events)
        result = load([str(log)], impatient, Topics(live.prefix), progress=stopped)
    finally:
        wake()
    assert (result.events, result.lines) == (6000, 6000)
    assert any("Kafka has not answered for" in message for message in caplog.messages)
    assert sorted(record.value for record in read(live, "search-events")) == sorted(events)


def test_a_broker_that_stays_away_ends_the_load_which_says_how_to_go_on(
    live: Live, broker: Broker, impatient: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader._DELIVERY_TIMEOUT_MS", 4_000)
    live.create()
    events = [page(f"r{n}", f"u{n}", T + n) for n in range(6000)]
    log = write_log(live.folder / "log.jsonl", events)

    def crash(done: int, total: int) -> None:
        if done >= total / 3:
            broker.kill()

    try:
        with pytest.raises(PrectrError) as failed:
            load([str(log)], impatient, Topics(live.prefix), progress=crash)
    finally:
        broker.kill()
        broker.start()
    assert "Kafka reports " in str(failed.value)
    found = re.search(r"The first ([0-9]+) lines of the log are loaded", str(failed.value))
    assert found is not None
    assert failed.value.remedies == (Remedy.SKIP_LOADED,)
    lines = int(found[1])
    assert lines < 6000
    assert set(events[:lines]) <= {record.value for record in read(live, "search-events")}
    load([str(log)], impatient, Topics(live.prefix), skip_lines=lines)
    assert {record.value for record in read(live, "search-events")} == set(events)


def test_a_slow_load_notices_that_the_broker_stays_away(
    live: Live, broker: Broker, impatient: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prectr.stream.kafka.io.log_loader._DELIVERY_TIMEOUT_MS", 4_000)
    live.create()
    log = write_log(live.folder / "log.jsonl", [page(f"r{n}", f"u{n}", T + 100 * n) for n in range(3000)])
    sent = 0

    def counted(lines: list[bytes]) -> list[Event | InvalidEvent]:
        nonlocal sent
        sent += len(lines)
        if sent > 100:
            broker.kill()
        return decode_lines(lines)

    monkeypatch.setattr("prectr.stream.kafka.io.log_loader.decode_lines", counted)
    try:
        with pytest.raises(PrectrError, match="lines of the log are loaded"):
            load([str(log)], impatient, Topics(live.prefix), speed=10)
    finally:
        broker.kill()
        broker.start()
    assert 100 < sent < 3000
