"""Shows round after round: on a terminal in place, elsewhere one screen below the other."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from prectr.ops.json_file import to_json
from prectr.ops.top.poller import Poller
from prectr.ops.top.screen import no_response_hint, render
from prectr.ops.top.stats import SystemStatus
from prectr.state.errors import PrectrError

DEFAULT_ENDPOINTS: Final = [f"127.0.0.1:{port}" for port in (*range(9401, 9417), 9490)]
"""Where `prectr run --metrics-port 9401` serves its processes' metrics, and a monitor that is run by itself."""
_STOP_POLL_INTERVAL: Final = 0.1
"""So soon it ends when it is asked to."""
_FILE_WIDTH: Final = 120
"""Columns where there is no terminal."""


def print_once(poller: Poller, json: Path | None) -> None:
    """Print one screen.

    PrectrError: nothing answers, or `json` cannot be written.
    """
    console = _console()
    update = poller.poll()
    _write(json, update.status)
    if not any(each.up for each in update.status.exporters):
        errors = "; ".join(f"{each.url}: {each.error}" for each in update.status.exporters)
        raise PrectrError(f"{errors}. {no_response_hint()}")
    console.print(render(update, console, full=True))


def watch(poller: Poller, *, interval: float, stop: Callable[[], bool], json: Path | None) -> None:
    """Show the system until asked to stop.

    PrectrError: `json` cannot be written.
    """
    console = _console()
    note = f"every {interval:g} s, Ctrl-C ends"
    if not console.is_terminal:
        while not stop():
            update = poller.poll()
            _write(json, update.status)
            console.print(render(update, console, full=True), end="\n\n")
            _wait(interval, stop)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not stop():
            update = poller.poll()
            _write(json, update.status)
            live.update(render(update, console, note=note), refresh=True)
            _wait(interval, stop)


def _console() -> Console:
    """The screen is what the command is for, so it goes to stdout."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    return console


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stop() and (remaining := deadline - time.monotonic()) > 0:
        time.sleep(min(remaining, _STOP_POLL_INTERVAL))


def _write(path: Path | None, status: SystemStatus) -> None:
    """Write it whole or not at all: a program may read at any time."""
    if path is None:
        return
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(to_json(status))
        os.replace(temporary, path)
    except OSError as error:
        raise PrectrError(f"cannot write {path}: {error.strerror}; name another file with --json") from error
