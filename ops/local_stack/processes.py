"""Finds the processes of a run of `make up` by an environment variable that they all inherit, via /proc."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

RUN_VARIABLE: Final = "MAKE_UP_RUN"
"""Environment variable inherited by every process of a run; its value is the folder of the run."""
_HONCHO_VARIABLE: Final = "HONCHO_PROCESS_NAME"
_POLL_INTERVAL: Final = 0.1


class Process(NamedTuple):
    """A process of a run. service: its name in the Procfile; empty for honcho itself."""

    pid: int
    parent: int
    service: str


def processes_of(folder: Path) -> list[Process]:
    """All live processes of the run in `folder`, except the calling one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Processes may exit meanwhile, and those of other users are not readable.
        with suppress(OSError):
            environ = _environ(entry)
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if environ.get(RUN_VARIABLE) == str(folder) and state != "Z":
                found.append(Process(int(entry.name), int(parent), environ.get(_HONCHO_VARIABLE, "").partition(".")[0]))
    return found


def process_leaders(processes: Iterable[Process]) -> list[Process]:
    """The processes that were not started by another process of their service."""
    by_pid = {process.pid: process for process in processes}
    return [each for each in by_pid.values() if getattr(by_pid.get(each.parent), "service", None) != each.service]


def send_signal(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def wait_until_gone(folder: Path, seconds: float, service: str | None = None) -> list[Process]:
    """Wait for the processes of a run, or of one service, to end; returns those that have not."""
    deadline = time.monotonic() + seconds
    while remaining := [process for process in processes_of(folder) if service in (None, process.service)]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_INTERVAL)
    return remaining


def _environ(entry: Path) -> dict[str, str]:
    pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
