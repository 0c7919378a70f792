"""`prectr run`: everything on one machine, kept running, and nothing left behind however it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from testkit.command import PRECTR, environment, prectr
from tests.kafka.live import MODEL, Live, replay_log, result_of
from tests.kafka.worlds import simulated, split_orderly_log

_DEADLINE = 240.0


class Run:
    """A `prectr run` on a system's broker."""

    def __init__(self, live: Live, *flags: str) -> None:
        self.folder = live.folder / "live"
        self.log = live.folder / "run.stderr"
        names = ["--bootstrap", live.bootstrap, "--topic-prefix", live.prefix, "--group-prefix", live.prefix]
        short = ["--session-timeout", "3", "--checkpoint-interval", "0", "--partitions", str(live.partitions)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*PRECTR, "run", *names, *short, "--run-dir", str(self.folder), "--model", MODEL, *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(),
            )

    def child(self, command: str) -> int | None:
        """Process id of the child that runs a command."""
        for pid in _children(self.process.pid):
            words = _words(pid)
            if "prectr.ops.live.parent_watchdog" in words and command in words:
                return pid
        return None

    def until(self, condition: Callable[[], bool]) -> None:
        begun = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - begun < _DEADLINE, self.log.read_text()
            time.sleep(0.1)

    def ended(self, code: int = 0) -> str:
        self.process.wait(_DEADLINE)
        log = self.log.read_text()
        assert self.process.returncode == code, log
        assert "Traceback" not in log
        return log

    def learning(self) -> bool:
        """Whether the trainer has a checkpoint."""
        return any((self.folder / "checkpoints").glob("0*"))

    def left(self) -> list[str]:
        """Processes of this run that are still there."""
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        commands = [" ".join(_words(number)) for number in numbers if number != os.getpid()]
        return [command for command in commands if str(self.folder) in command]


def _free_port() -> int:
    """The first of two ports that are free."""
    for port in range(20_000, 30_000, 2):
        with ExitStack() as stack, suppress(OSError):
            for each in (port, port + 2):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
    raise AssertionError("no two free ports")


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return simulated(tmp_path, pages=800)


@pytest.fixture
def start(live: Live) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def begin(*flags: str) -> Run:
        started.append(Run(live, *flags))
        return started[-1]

    yield begin
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def test_three_commands_equal_the_replay_though_children_are_killed(
    live: Live, world: Path, start: Callable[..., Run], tmp_path: Path
) -> None:
    live.create()
    live.load(world)
    run = start("--until-end", "--flush")
    for command in ("stream", "train"):
        run.until(lambda command=command: run.child(command) is not None)
        pid = run.child(command)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        run.until(lambda pid=pid, command=command: run.child(command) not in (None, pid))
    log = run.ended()
    assert "stream-1: killed by SIGKILL; restarting it" in log
    assert "train: killed by SIGKILL; restarting it" in log
    assert "AUC" in log
    assert "GAUC" in log
    report = json.loads((run.folder / "report.json").read_bytes())
    assert result_of(report, live.examples()) == replay_log(tmp_path, world)
    assert run.left() == []


def test_it_creates_the_topics_stops_on_request_and_resumes(
    live: Live, world: Path, start: Callable[..., Run], tmp_path: Path
) -> None:
    before, after = split_orderly_log(world, live.partitions, tmp_path)
    first = start("--stream-workers", "2")
    first.until(lambda: first.child("train") is not None)
    live.load(before)
    first.until(first.learning)
    first.process.send_signal(signal.SIGTERM)
    log = first.ended()
    assert f"{live.prefix}search-events: created, {live.partitions} partitions" in log
    assert first.left() == []
    live.load(after)
    second = start("--stream-workers", "2", "--until-end", "--flush")
    second.ended()
    report = json.loads((second.folder / "report.json").read_bytes())
    assert result_of(report, live.examples()) == replay_log(tmp_path, world)


def test_nothing_is_left_when_it_is_killed(live: Live, world: Path, start: Callable[..., Run], tmp_path: Path) -> None:
    before, after = split_orderly_log(world, live.partitions, tmp_path)
    live.create()
    live.load(before)
    port = _free_port()
    first = start("--metrics-port", str(port))
    first.until(first.learning)
    for each in (port, port + 2):
        assert b"prectr_" in urlopen(f"http://127.0.0.1:{each}/metrics", timeout=60).read()
    first.process.kill()
    first.process.wait()
    begun = time.monotonic()
    while first.left():
        assert time.monotonic() - begun < _DEADLINE
        time.sleep(0.2)
    live.load(after)
    second = start("--until-end", "--flush")
    second.ended()
    report = json.loads((second.folder / "report.json").read_bytes())
    assert result_of(report, live.examples()) == replay_log(tmp_path, world)


def test_a_child_that_cannot_run_ends_it_with_its_error(live: Live, start: Callable[..., Run], tmp_path: Path) -> None:
    # Each setting is allowed; that they do not go together is found by the trainer.
    config = tmp_path / "settings.toml"
    config.write_text('model = "lr"\nwithout = ["debias"]\n')
    run = start("--config", str(config))
    log = run.ended(code=2)
    *_, last = log.strip().splitlines()
    assert last.startswith("prectr: train: ")
    assert "lr has no" in last
    assert run.left() == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--bootstrap"),
        (["--bootstrap", "b:1", "x.jsonl"], "x.jsonl"),
        (["--bootstrap", "b:1", "--flush"], "--until-end"),
        (["--bootstrap", "b:1", "--batch-span", "soon"], "soon"),
    ],
)
def test_wrong_use(flags: list[str], expected: str) -> None:
    done = prectr("run", *flags)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_no_broker(tmp_path: Path) -> None:
    to_the_end = ["--until-end", "--connect-timeout", "1", "--run-dir", tmp_path / "live"]
    done = prectr("run", "--bootstrap", "127.0.0.1:9", *to_the_end)
    assert done.returncode == 1
    assert "127.0.0.1:9: no answer from Kafka in 1 s" in done.stderr


def test_a_broker_that_is_not_there_yet_is_awaited_until_a_stop(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    command = [*PRECTR, "run", "--bootstrap", "127.0.0.1:9", "--run-dir", str(tmp_path / "live")]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment())
    deadline = time.monotonic() + 60
    while not re.search(rb"127\.0\.0\.1:9: no answer from Kafka in 5 s .*: waiting for it", log.read_bytes()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert "Traceback" not in log.read_text()
