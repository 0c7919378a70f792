"""Which processes belong to a run of `make up`, however they were started and whoever has died: by a mark in /proc."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

RUN_VARIABLE: Final = "MAKE_UP_RUN"
"""Environment variable that every process of a run inherits: the run's folder."""
_HONCHO_VARIABLE: Final = "HONCHO_PROCESS_NAME"
_POLL_INTERVAL: Final = 0.1


class Process(NamedTuple):
    """One process of a run. part: the name of the Procfile's line that it belongs to; "" for honcho itself."""

    pid: int
    parent: int
    service: str


def processes_of(folder: Path) -> list[Process]:
    """Every process of the run in `folder` that lives, but for the one that asks."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Processes come and go, and those of others are not ours to read.
        with suppress(OSError):
            environ = _environ(entry)
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if environ.get(RUN_VARIABLE) == str(folder) and state != "Z":
                found.append(Process(int(entry.name), int(parent), environ.get(_HONCHO_VARIABLE, "").partition(".")[0]))
    return found


def process_leaders(processes: Iterable[Process]) -> list[Process]:
    """Those of the processes that no other of their part has started."""
    by_pid = {process.pid: process for process in processes}
    return [each for each in by_pid.values() if getattr(by_pid.get(each.parent), "part", None) != each.service]


def send_signal(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def wait_until_gone(folder: Path, seconds: float, service: str | None = None) -> list[Process]:
    """Wait for the processes of a run, or of one part of it, to end; returns those that have not."""
    deadline = time.monotonic() + seconds
    while remaining := [process for process in processes_of(folder) if service in (None, process.service)]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_INTERVAL)
    return remaining


def _environ(entry: Path) -> dict[str, str]:
    pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
