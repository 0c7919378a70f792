"""Shows round after round: on a terminal in place, elsewhere one screen below the other."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live

from prectr.ops.top.poller import Watching
from prectr.ops.top.screen import advice, drawn
from prectr.ops.top.stats import Figures
from prectr.state.errors import PrectrError

DEFAULT_ENDPOINTS: Final = [f"127.0.0.1:{port}" for port in (*range(9401, 9417), 9490)]
"""Where `prectr run --metrics-port 9401` serves its processes' metrics, and a monitor that is run by itself."""
_STEP_SECONDS: Final = 0.1
"""So soon it ends when it is asked to."""
_PAPER_WIDTH: Final = 120
"""Columns where there is no terminal."""


def show_once(watching: Watching, json: Path | None) -> None:
    """Print one screen.

    PrectrError: nothing answers, or `json` cannot be written.
    """
    console = _console()
    seen = watching.round()
    _write(json, seen.figures)
    if not any(each.answers for each in seen.figures.exporters):
        troubles = "; ".join(f"{each.url}: {each.trouble}" for each in seen.figures.exporters)
        raise PrectrError(f"{troubles}. {advice()}")
    console.print(drawn(seen, console, whole=True))


def watch(watching: Watching, *, every: float, stop: Callable[[], bool], json: Path | None) -> None:
    """Show the system until asked to stop.

    PrectrError: `json` cannot be written.
    """
    console = _console()
    note = f"every {every:g} s, Ctrl-C ends"
    if not console.is_terminal:
        while not stop():
            seen = watching.round()
            _write(json, seen.figures)
            console.print(drawn(seen, console, whole=True), end="\n\n")
            _wait(every, stop)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not stop():
            seen = watching.round()
            _write(json, seen.figures)
            live.update(drawn(seen, console, note=note), refresh=True)
            _wait(every, stop)


def _console() -> Console:
    """The screen is what the command is for, so it goes to stdout."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PAPER_WIDTH
    return console


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _STEP_SECONDS))


def _write(path: Path | None, seen: Figures) -> None:
    """Write it whole or not at all: a program may read at any time."""
    if path is None:
        return
    aside = path.with_name(path.name + ".new")
    try:
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(seen), indent=2) + b"\n")
        os.replace(aside, path)
    except OSError as error:
        raise PrectrError(f"cannot write {path}: {error.strerror}; name another file with --json") from error
