"""`prectr doctor` on a live system: what is well, what is not, and that nothing is disturbed."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from prectr.stream.kafka.client.client import Connection
from testkit.command import prectr
from tests.kafka.live import Live
from tests.kafka.worlds import simulated

_SECRET = "a-secret-that-must-not-be-shown"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return simulated(tmp_path, pages=300)


def doctor(live: Live, *flags: str | Path, code: int = 0, bootstrap: str | None = None) -> list[dict[str, Any]]:
    """Let it look; its findings."""
    (live.folder / "client.toml").write_text(f'sasl_plain_password = "{_SECRET}"\n')
    out = live.folder / "findings.json"
    names = ["--topic-prefix", live.prefix, "--group-prefix", live.prefix, "--json", str(out), "--connect-timeout", "1"]
    names += ["--bootstrap", bootstrap or live.bootstrap, "--client-config", str(live.folder / "client.toml")]
    done = prectr("doctor", *names, *flags)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert _SECRET not in done.stdout + done.stderr + out.read_text()
    findings: list[dict[str, Any]] = json.loads(out.read_bytes())
    for finding in findings:
        assert finding["observed"] in done.stdout
    return findings


def levels(findings: list[dict[str, Any]], name: str) -> set[str]:
    found = {finding["severity"] for finding in findings if name in finding["name"]}
    assert found, f"no finding about {name}"
    return found


def written(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*") if file.is_file()}


def test_a_missing_broker_is_reported_and_the_rest_is_checked_all_the_same(live: Live) -> None:
    findings = doctor(live, "--run-dir", live.folder / "run", code=1, bootstrap="127.0.0.1:9")
    assert levels(findings, "broker") == {"error"}
    assert levels(findings, "libraries") == {"ok"}
    assert levels(findings, "checkpoint") == {"ok"}


def test_missing_topics_are_reported_with_the_command_that_creates_them(live: Live) -> None:
    findings = doctor(live, code=1)
    assert levels(findings, "broker") == {"ok"}
    (missing,) = [
        finding for finding in findings if finding["severity"] == "error" and "search-events" in finding["name"]
    ]
    assert "prectr topics create" in missing["advice"]


def test_a_system_from_its_first_event_to_a_corrupt_checkpoint(live: Live, world: Path) -> None:
    live.create()
    assert levels(doctor(live), "commits of") == {"ok"}
    live.load(world)
    # Nothing has been started yet.
    findings = doctor(live)
    assert levels(findings, f"group {live.prefix}join") == levels(findings, f"commits of {live.prefix}join") == {"ok"}

    stream, state, run = live.start_stream(), live.state_dir("1"), live.folder / "train"
    train = live.start_train("--checkpoint-interval", "0")
    folders = ["--state-dir", str(state), "--run-dir", str(run)]
    while not any((run / "checkpoints").glob("0*")):
        assert stream.poll() is None, live.stderr_of(stream)
        assert train.poll() is None, live.stderr_of(train)
        time.sleep(0.2)
    findings = doctor(live, *folders)
    assert levels(findings, f"group {live.prefix}") == {"ok"}
    assert [finding["observed"] for finding in findings if finding["name"] == "state"] == [
        f"{state}: {2 * live.partitions} tasks, in use by running process {stream.pid}"
    ]
    assert levels(findings, "trainer") == levels(findings, "checkpoint") == {"ok"}

    for process in (stream, train):
        live.request_stop(process)
        live.wait_for_end(process)
    before = written(state)
    findings = doctor(live, *folders)
    assert written(state) == before
    assert levels(findings, "state") == {"ok"}
    assert levels(findings, f"group {live.prefix}") == levels(findings, "trainer") == {"warning"}

    live.load(simulated(world.parent, pages=50, seed=6))
    findings = doctor(live, *folders, code=1)
    assert levels(findings, f"group {live.prefix}join") == {"error"}
    assert levels(findings, "input") == {"ok"}

    newest = max((run / "checkpoints").glob("0*"))
    (newest / "reader.msgpack").write_bytes(b"")
    assert levels(doctor(live, *folders, code=1), "checkpoint") == {"error"}


def test_a_forged_frame_that_stops_a_task_is_named(live: Live, world: Path) -> None:
    live.create()
    live.load(world)
    live.stream()
    producer = Connection(live.bootstrap).producer()
    sent = producer.send(f"{live.prefix}joined-pages", value=b"{}", partition=1).get(10)
    producer.close()
    findings = doctor(live, code=1)
    (named,) = [finding for finding in findings if finding["name"] == "next record"]
    assert named["severity"] == "error"
    assert named["observed"].startswith(f"{live.prefix}joined-pages partition 1 offset {sent.offset}: not a frame")
    assert levels(findings, f"group {live.prefix}aggregate") == {"error"}
