"""What the doctor says of the processes of `prectr run`: their ports, and the errors with which they ended."""

import json
import socket
from pathlib import Path

import pytest

from prectr.ops.cli.log_format import LogLine, encode_line
from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host import processes
from prectr.ops.doctor.host.processes import check_logs, check_targets
from prectr.state.lock import FolderLock

ERROR = "joined-pages partition 2 offset 17: not a frame"


def targets(run_dir: Path, **ports: int) -> None:
    groups = [{"labels": {"job": job}, "targets": [f"127.0.0.1:{port}"]} for job, port in ports.items()]
    (run_dir / "targets.json").write_text(json.dumps(groups))


def of_targets(run_dir: Path, *, waits: bool = False) -> Finding:
    (finding,) = check_targets(run_dir, waits=waits)
    return finding


def test_processes_that_are_gone_are_an_error_only_where_records_wait(tmp_path: Path) -> None:
    assert list(check_targets(None, waits=True)) == list(check_targets(tmp_path, waits=True)) == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        targets(tmp_path, stream=port, train=port)
        assert of_targets(tmp_path, waits=True).severity == "ok"
        targets(tmp_path, stream=port, train=9)
        found = of_targets(tmp_path, waits=True)
        assert found.severity == "error"
        assert "1 of 2" in found.observed
        assert found.observed.endswith("take no connections: train 127.0.0.1:9")
        assert of_targets(tmp_path).severity == "warning"
        targets(tmp_path, stream=port, monitor=9)
        assert of_targets(tmp_path, waits=True).severity == "warning", "nothing waits for a monitor"


@pytest.mark.parametrize(
    "line",
    [f"prectr: {ERROR}", encode_line(LogLine("2026-01-01T00:00:00Z", "ERROR", "prectr", ERROR))],
    ids=["console", "json"],
)
def test_the_error_with_which_a_process_ended_is_repeated_until_it_has_run_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train.log").write_text("2026-01-01 00:00:00,000 INFO started\n")
    (tmp_path / "logs" / "stream-1.log").write_text(f"prectr: an older error\n{line}\n2026-01-01 INFO restarted\n")
    (ended,) = check_logs(tmp_path, None)
    assert (ended.name, ended.severity) == ("process stream-1", "error")
    assert ended.observed == f"has ended with: {ERROR}"

    lock = FolderLock(tmp_path / "state" / "stream-1")
    for seconds, severity in ((5.0, "warning"), (500.0, "ok")):
        monkeypatch.setattr(processes, "running_seconds", lambda _, seconds=seconds: seconds)
        (again,) = check_logs(tmp_path, None)
        assert (again.severity, ERROR in again.observed) == (severity, True)
    lock.release()
