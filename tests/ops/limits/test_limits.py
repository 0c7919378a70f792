"""Limits of the system: what is too low is said at the start; one that is hit is named, and no data is blamed."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prectr.ops.doctor.host.limits import check_process_limits
from prectr.ops.limits.check import limit_findings
from prectr.ops.limits.needs import Needs, process_needs, replay_needs, stream_needs
from prectr.ops.limits.process_limits import ProcessLimits, limits_of, own_limits
from prectr.state.lock import FolderLock
from testkit.command import PRECTR, environment
from tests.prectr.short_log import PAGES, short_log

UNLIMITED = sys.maxsize
PLENTY = ProcessLimits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


def limited(command: list[str], cwd: Path, **limits: tuple[int, int]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process with limits of its own, such as NOFILE=(64, 64)."""

    def apply() -> None:
        for name, values in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), values)

    return subprocess.run(
        command,
        cwd=cwd,
        preexec_fn=apply,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def replay(folder: Path, *flags: str) -> list[str]:
    return [*PRECTR, "replay", str(folder / "log.jsonl"), "--run-dir", str(folder / "run"), "--no-train", *flags]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    short_log(tmp_path)
    return tmp_path


def test_too_few_open_files_end_a_replay_at_its_start_and_name_the_limit(log: Path) -> None:
    done = limited(replay(log), log, NOFILE=(64, 64))
    assert done.returncode == 1
    assert "limit of open files: 64, 128 are needed: raise it, by ulimit -n 2176" in done.stderr
    assert "another process" not in done.stderr
    assert not list((log / "run").glob("*"))
    # The same command, with the limit raised.
    assert limited(replay(log), log).returncode == 0


def test_the_soft_limit_is_raised_to_what_may_be_needed_and_no_further(log: Path) -> None:
    code = (
        "import resource; from prectr.ops.limits.check import check_limits; from prectr.ops.limits.needs import Needs;"
        "check_limits(Needs(10, 300, 1, {})); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    for soft, raised in ((100, 300), (500, 500)):
        done = limited([sys.executable, "-c", code], log, NOFILE=(soft, 1000))
        assert done.stdout.strip() == f"({raised}, 1000)", done.stderr
        assert done.stderr == ""


def test_a_limit_of_the_size_of_files_is_a_warning_and_where_it_is_hit_an_error_that_names_it(log: Path) -> None:
    done = limited(replay(log), log, FSIZE=(8192, 8192))
    assert done.returncode == 1
    assert "WARNING" in done.stderr
    assert "limit of the size of a file: 8,192 bytes" in done.stderr
    error = done.stderr.splitlines()[-1]
    assert "the limit of the size of a file is 8,192 bytes: lift it, by ulimit -f unlimited" in error
    assert "delete" not in error
    # Nothing is lost: the same command goes on.
    again = limited(replay(log), log)
    assert again.returncode == 0, again.stderr
    assert f"{PAGES} pages" in re.sub(r"\s+", " ", again.stdout)


def test_no_folder_for_temporary_files_is_an_error(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_usable() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none_usable)
    (finding,) = limit_findings(process_needs({}), PLENTY)
    assert (finding.severity, finding.advice) == ("error", "make /tmp writable, or set TMPDIR to a folder")
    assert "No usable temporary directory" in finding.observed


def test_a_full_folder_for_temporary_files_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    for free, severities in ((1 << 20, ["warning"]), (1 << 30, [])):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert [finding.severity for finding in limit_findings(process_needs({}), PLENTY)] == severities


@pytest.mark.parametrize(
    ("limits", "severity", "observed"),
    [
        (PLENTY, None, ""),
        (PLENTY._replace(open_files=99), "error", "99, 100 are needed"),
        (PLENTY._replace(open_files=999), "warning", "999, up to 1,000 as the state grows"),
        (PLENTY._replace(open_files=1000), None, ""),
        (PLENTY._replace(threads_left=-3), "warning", "0 can still be started, up to 10 are needed"),
        (PLENTY._replace(file_size=1 << 30), "warning", "1,073,741,824 bytes"),
    ],
)
def test_what_is_too_low_is_a_finding(limits: ProcessLimits, severity: str | None, observed: str) -> None:
    found = list(limit_findings(Needs(100, 1000, 10, {}), limits))
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])
    assert all(observed in finding.observed and finding.advice for finding in found)


def test_more_tasks_need_more_open_files() -> None:
    one, eight = stream_needs(1, {}), stream_needs(8, {})
    assert (eight.open_files, eight.most_open_files, eight.threads) == (192, 2240, 64)
    assert one.most_open_files < eight.most_open_files
    # A replay has no clients of Kafka.
    assert replay_needs(8, {}).open_files < eight.open_files


def test_a_full_disk_is_a_warning_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize, f_favail, f_files, f_blocks, f_bfree = 1, 4096, 1 << 20, 1 << 21, 1 << 20, 1

    monkeypatch.setattr("prectr.ops.doctor.host.disk.os.statvfs", lambda path: Full)
    found = {finding.name: finding for finding in limit_findings(process_needs({"run folder": tmp_path}), PLENTY)}
    assert {name: finding.severity for name, finding in found.items()} == {
        "temporary files": "warning",
        "run folder": "warning",
    }
    assert "0.0 GiB free" in found["run folder"].observed


def test_the_limits_of_another_process_are_those_of_the_kernel() -> None:
    assert limits_of(os.getpid()) == own_limits()._replace(threads_left=UNLIMITED)
    assert limits_of(1 << 30) is None


def test_doctor_names_a_running_process_that_is_near_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = check_process_limits(None, tmp_path)
    assert (finding.name, finding.severity) == ("limits of this shell", "ok")
    lock = FolderLock(tmp_path)
    (finding,) = check_process_limits(None, tmp_path)
    assert (finding.name, finding.severity) == (f"limits of process {os.getpid()}", "ok")
    monkeypatch.setattr("prectr.ops.doctor.host.limits.open_file_count", lambda pid: own_limits().open_files)
    (finding,) = check_process_limits(None, tmp_path)
    assert finding.severity == "warning"
    assert "LimitNOFILE=" in finding.advice
    lock.release()
