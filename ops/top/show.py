"""Shows poll after poll: in place on a terminal, elsewhere one screen below the other."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from prectr.ops.cli.output import stdout_console
from prectr.ops.json_file import to_json
from prectr.ops.top.poller import Poller
from prectr.ops.top.screen import no_response_hint, render
from prectr.ops.top.stats import SystemStatus
from prectr.state.errors import PrectrError

DEFAULT_ENDPOINTS: Final = [f"127.0.0.1:{port}" for port in (*range(9401, 9417), 9490)]
"""The metrics endpoints of `prectr run --metrics-port 9401`, and of a separate monitor."""
_STOP_POLL_INTERVAL: Final = 0.1
"""Seconds between two checks for a stop request."""
_FILE_WIDTH: Final = 120
"""Columns where the output is not a terminal."""


def print_once(poller: Poller, json: Path | None) -> None:
    """Print one screen; raises PrectrError if no endpoint responds or `json` cannot be written."""
    console = _console()
    update = poller.poll()
    _write(json, update.status)
    if not any(each.up for each in update.status.exporters):
        errors = "; ".join(f"{each.url}: {each.error}" for each in update.status.exporters)
        raise PrectrError(f"{errors}. {no_response_hint()}")
    console.print(render(update, console, full=True))


def watch(poller: Poller, *, interval: float, stop: Callable[[], bool], json: Path | None) -> None:
    """Show the system until `stop` returns true; raises PrectrError if `json` cannot be written."""
    console = _console()
    note = f"every {interval:g} s, Ctrl-C exits"
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
    """The screen is the result of the command, so it goes to stdout."""
    return stdout_console(None if "COLUMNS" in os.environ else _FILE_WIDTH, highlight=False)


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stop() and (remaining := deadline - time.monotonic()) > 0:
        time.sleep(min(remaining, _STOP_POLL_INTERVAL))


def _write(path: Path | None, status: SystemStatus) -> None:
    """Write atomically: a program may read the file at any time."""
    if path is None:
        return
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(to_json(status))
        os.replace(temporary, path)
    except OSError as error:
        raise PrectrError(f"cannot write {path}: {error.strerror}; choose another --json file") from error
