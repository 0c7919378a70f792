"""The doctor answers in time whatever hangs, and tells what was not checked from what is broken."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prectr.ops.doctor import Deployment, checks, run_checks
from prectr.ops.doctor.broker.listener import connection_advice
from prectr.ops.doctor.findings import Finding
from prectr.stream.config import PipelineConfig
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def deployment(bootstrap: str, connect_timeout: float = 0.0) -> Deployment:
    connection = Connection(bootstrap, connect_timeout=connect_timeout)
    return Deployment(connection=connection, topics=Topics(""), group_prefix="", config=PipelineConfig())


def found(name: str, findings: list[Finding]) -> Finding:
    (finding,) = [each for each in findings if each.name == name]
    return finding


def test_an_address_where_nothing_listens_is_told_from_a_broker_that_hangs(silent_port: int) -> None:
    refused = found("broker", run_checks(deployment("127.0.0.1:9")))
    assert refused.severity == "error"
    assert refused.advice.startswith("nothing listens at 127.0.0.1:9 (connection refused): start the broker there")
    hangs = found("broker", run_checks(deployment(f"127.0.0.1:{silent_port}")))
    assert hangs.severity == "error"
    assert hangs.advice.startswith("Kafka takes connections and answers nothing")


def test_one_of_several_addresses_that_takes_connections_is_enough(silent_port: int) -> None:
    assert connection_advice(f"127.0.0.1:9,127.0.0.1:{silent_port}")[0]
    assert connection_advice("127.0.0.1:9,127.0.0.1:10")[0] is False
    is_listening, advice = connection_advice("no-such-host.invalid:9092")
    assert not is_listening
    assert "check the address in --bootstrap" in advice


def test_a_check_that_takes_too_long_was_not_checked_and_hides_no_other(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hanging(*_: object) -> Iterator[Finding]:
        time.sleep(30)
        yield Finding("disk", "ok", "never")

    monkeypatch.setattr(checks, "check_disk", hanging)
    findings = run_checks(deployment("127.0.0.1:9"), 5.0)
    assert found("disk", findings).severity == "warning"
    assert found("disk", findings).observed.startswith("not checked: took longer than 5 s")
    assert found("broker", findings).severity == "error"


@pytest.mark.parametrize(
    ("step", "listens", "severity"),
    [
        ("broker", True, "error"),
        ("rights", True, "warning"),
        ("rights", False, "error"),
        ("checkpoint", True, "warning"),
    ],
)
def test_only_a_broker_that_does_not_answer_makes_a_slow_check_an_error(
    silent_port: int, monkeypatch: pytest.MonkeyPatch, step: str, listens: bool, severity: str
) -> None:
    def hanging(_: Deployment, lane: "checks._Lane") -> Iterator[Finding]:
        lane.step = step
        time.sleep(30)
        yield Finding(step, "ok", "never")

    monkeypatch.setattr(checks, "_system_checks", hanging)
    findings = run_checks(deployment(f"127.0.0.1:{silent_port if listens else 9}"), 0.2)
    assert found(step, findings).severity == severity


def test_no_check_imports_torch(tmp_path: Path) -> None:
    """It takes seconds, on a busy machine longer than all checks may."""
    program = (
        "import sys; from pathlib import Path; import prectr.ops.doctor; "
        "from prectr.ops.doctor.host.checkpoint import check_checkpoint; "
        "list(check_checkpoint(Path(sys.argv[1]), None)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == 0
