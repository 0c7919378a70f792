"""Supervised processes: restarted, reported with their own error when they keep failing, ended with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prectr.ops.live.supervisor import LogTail, ManagedProcess, RestartPolicy, supervise
from prectr.state.errors import PrectrError, UsageError

HASTE = RestartPolicy(max_failures=3, initial_delay=0.01, max_delay=0.02, grace_period=60)
DEADLINE = 60.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; that it does not is the failure."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < DEADLINE
        time.sleep(0.05)


def forever(folder: Path) -> list[str]:
    """A command that goes on until it is asked to stop."""
    return ["simulate", "--pages", "100000000", "--out", str(folder / "log.jsonl")]


def failing(folder: Path) -> list[str]:
    """A command that says what is wrong and fails."""
    return ["verify", "--run-dir", str(folder / "nowhere")]


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_one_that_ends_as_it_should_is_done(tmp_path: Path) -> None:
    log = tmp_path / "schema.log"
    child = ManagedProcess("schema", ["schema"], log, may_exit=True, restart_policy=HASTE)
    supervise([child], stop=lambda: False, restart_policy=HASTE)
    assert child.completed
    assert child.restarts == 0
    assert "search" in log.read_text()


def test_a_crash_looping_process_fails_the_supervisor_with_its_log_tail_and_the_others_end(tmp_path: Path) -> None:
    well = ManagedProcess("well", forever(tmp_path), tmp_path / "well.log", may_exit=False, restart_policy=HASTE)
    ill = ManagedProcess("ill", failing(tmp_path), tmp_path / "ill.log", may_exit=False, restart_policy=HASTE)
    with pytest.raises(PrectrError, match=r"ill has failed 3 times in a row.*nowhere"):
        supervise([well, ill], stop=lambda: False, restart_policy=HASTE)
    assert ill.restarts == 2
    assert not well.running


def test_the_first_cause_of_failures_is_what_the_supervisor_ends_with(tmp_path: Path) -> None:
    """Partitions were added: the first failure says so, the later ones only what followed from it."""
    script = tmp_path / "prectr.py"
    first = tmp_path / "first"
    script.write_text(
        "import pathlib, sys\n"
        f"again = pathlib.Path({str(first)!r})\n"
        "print('prectr: joined-pages has 4 partitions' if again.exists() else 'prectr: partitions were added')\n"
        "again.touch()\nsys.exit(1)\n"
    )
    ill = ManagedProcess("stream-1", [], tmp_path / "ill.log", may_exit=False, restart_policy=HASTE)
    ill._command = [sys.executable, str(script)]
    with pytest.raises(PrectrError) as caught:
        supervise([ill], stop=lambda: False, restart_policy=HASTE)
    log = tmp_path / "ill.log"
    assert caught.value.message == (
        f"stream-1: partitions were added (log: {log}). 2 failures followed; the last: "
        f"stream-1 has failed 3 times in a row: joined-pages has 4 partitions (log: {log})"
    )


def test_a_failure_that_a_process_has_recovered_from_is_not_the_first_cause(tmp_path: Path) -> None:
    policy = RestartPolicy(max_failures=2, initial_delay=0.01, reset_after=0.0, grace_period=60)
    well = ManagedProcess("well", forever(tmp_path), tmp_path / "well.log", may_exit=False, restart_policy=policy)
    well.start(time.monotonic())
    well.kill()
    well.poll(time.monotonic())
    assert well.recent_failures(time.monotonic()) == []


def test_an_unrequested_exit_is_a_crash(tmp_path: Path) -> None:
    child = ManagedProcess("schema", ["schema"], tmp_path / "schema.log", may_exit=False, restart_policy=HASTE)
    with pytest.raises(PrectrError, match="exited unexpectedly with code 0"):
        supervise([child], stop=lambda: False, restart_policy=HASTE)


def test_a_usage_error_is_not_retried(tmp_path: Path) -> None:
    child = ManagedProcess(
        "stream", ["stream", *["--bootstrap", "x:1", "--state-dir", "s", "--flush"]], tmp_path / "x.log", may_exit=True
    )
    with pytest.raises(UsageError, match="stream: --flush requires --until-end"):
        supervise([child], stop=lambda: False)
    assert child.restarts == 0


def test_a_killed_process_is_restarted_and_terminates_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = ManagedProcess("well", forever(tmp_path), tmp_path / "well.log", may_exit=False, restart_policy=HASTE)
    killed: list[int] = []

    def look() -> None:
        if child.pid is not None and not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    def again() -> bool:
        return child.running and child.restarts == 1

    supervise([child], stop=again, on_poll=look, restart_policy=HASTE)
    assert not child.running
    assert "killed by SIGKILL; restarting it" in caplog.text


def test_deaths_that_lie_far_apart_are_not_in_a_row(tmp_path: Path) -> None:
    child = ManagedProcess("ill", failing(tmp_path), tmp_path / "ill.log", may_exit=False, restart_policy=HASTE)
    now = 0.0
    child.start(now)
    for restarts in range(1, HASTE.max_failures + 2):

        def died(at: float = now, count: int = restarts) -> bool:
            child.poll(at + HASTE.reset_after * 2)
            child.poll(at + HASTE.reset_after * 4)
            return child.restarts == count

        until(died)
        now += HASTE.reset_after * 4
    child.kill()


def test_warnings_are_passed_on_and_the_rest_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "schema.log"
    child = ManagedProcess("schema", ["schema"], log, may_exit=True, restart_policy=HASTE)
    log.write_text("2026-01-02 03:04:05,678 WARNING the broker is slow\n2026-01-02 03:04:05,678 INFO all is well\n")
    supervise([child], stop=lambda: False, restart_policy=HASTE)
    assert "schema: the broker is slow" in caplog.text
    assert "all is well" not in caplog.text


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from prectr.ops.live.supervisor import ManagedProcess\n"
            "child = ManagedProcess('well', sys.argv[2:], Path(sys.argv[1]), may_exit=False)\n"
            "child.start(0.0); print(child.pid, flush=True); time.sleep(600)",
            tmp_path / "well.log",
            *forever(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.communicate()
    until(lambda: not alive(pid))


def test_failures_do_not_count_while_they_are_excused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    excused = [True]
    child = ManagedProcess(
        "ill",
        failing(tmp_path),
        tmp_path / "ill.log",
        may_exit=False,
        restart_policy=HASTE,
        is_outage=lambda: excused[0],
    )

    def forgive_ten() -> None:
        excused[0] = child.restarts < 10

    with pytest.raises(PrectrError, match="ill has failed 3 times in a row"):
        supervise([child], stop=lambda: False, on_poll=forgive_ten, restart_policy=HASTE)
    assert child.restarts >= 12
    told = [record.getMessage() for record in caplog.records if "until Kafka answers" in record.getMessage()]
    assert len(told) == 1


def test_a_log_that_is_truncated_in_place_is_followed_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("2026-01-01 00:00:00,000 WARNING the first\n" * 20)
    tail = LogTail(log)
    assert len(tail.read_warnings()) == 20
    log.write_text("2026-01-01 00:00:01,000 WARNING after the rotation\nprectr: the last word\n")
    assert tail.read_warnings() == ["after the rotation"]
    assert tail.pop_error() == "the last word"
