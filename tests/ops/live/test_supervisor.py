"""Children that are kept running: started again, given up with their own words, ended with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prectr.ops.live.supervisor import Child, Patience, supervise
from prectr.state.errors import PrectrError, UsageError

HASTE = Patience(attempts=3, first=0.01, longest=0.02, grace=60)
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
    child = Child("schema", ["schema"], log, may_end=True, patience=HASTE)
    supervise([child], stop=lambda: False, patience=HASTE)
    assert child.done
    assert child.restarts == 0
    assert "search" in log.read_text()


def test_one_that_keeps_dying_is_given_up_with_its_own_words_and_the_others_end(tmp_path: Path) -> None:
    well = Child("well", forever(tmp_path), tmp_path / "well.log", may_end=False, patience=HASTE)
    ill = Child("ill", failing(tmp_path), tmp_path / "ill.log", may_end=False, patience=HASTE)
    with pytest.raises(PrectrError, match=r"ill has ended 3 times in a row.*nowhere"):
        supervise([well, ill], stop=lambda: False, patience=HASTE)
    assert ill.restarts == 2
    assert not well.running


def test_an_end_nobody_asked_for_is_a_death(tmp_path: Path) -> None:
    child = Child("schema", ["schema"], tmp_path / "schema.log", may_end=False, patience=HASTE)
    with pytest.raises(PrectrError, match="though it was not asked to"):
        supervise([child], stop=lambda: False, patience=HASTE)


def test_wrong_use_is_not_tried_again(tmp_path: Path) -> None:
    child = Child(
        "stream", ["stream", *["--bootstrap", "x:1", "--state-dir", "s", "--flush"]], tmp_path / "x.log", may_end=True
    )
    with pytest.raises(UsageError, match="stream: --flush goes with --until-end"):
        supervise([child], stop=lambda: False)
    assert child.restarts == 0


def test_one_that_is_killed_is_started_again_and_ends_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child("well", forever(tmp_path), tmp_path / "well.log", may_end=False, patience=HASTE)
    killed: list[int] = []

    def look() -> None:
        if child.pid is not None and not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    def again() -> bool:
        return child.running and child.restarts == 1

    supervise([child], stop=again, look=look, patience=HASTE)
    assert not child.running
    assert "killed by SIGKILL; starting it again" in caplog.text


def test_deaths_that_lie_far_apart_are_not_in_a_row(tmp_path: Path) -> None:
    child = Child("ill", failing(tmp_path), tmp_path / "ill.log", may_end=False, patience=HASTE)
    now = 0.0
    child.start(now)
    for restarts in range(1, HASTE.attempts + 2):

        def died(at: float = now, count: int = restarts) -> bool:
            child.look(at + HASTE.steady * 2)
            child.look(at + HASTE.steady * 4)
            return child.restarts == count

        until(died)
        now += HASTE.steady * 4
    child.kill()


def test_warnings_are_passed_on_and_the_rest_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "schema.log"
    child = Child("schema", ["schema"], log, may_end=True, patience=HASTE)
    log.write_text("2026-01-02 03:04:05,678 WARNING the broker is slow\n2026-01-02 03:04:05,678 INFO all is well\n")
    supervise([child], stop=lambda: False, patience=HASTE)
    assert "schema: the broker is slow" in caplog.text
    assert "all is well" not in caplog.text


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from prectr.ops.live.supervisor import Child\n"
            "child = Child('well', sys.argv[2:], Path(sys.argv[1]), may_end=False)\n"
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
