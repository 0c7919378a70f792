"""What is seen while a command works: bars on a terminal, log lines elsewhere or where asked for. All on stderr."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console

from prectr.ops.cli.log_format import FORMATS, LEVELS, JsonLines
from prectr.state.errors import UsageError

_LINE_EVERY: Final = 10.0
"""Seconds between two log lines of a meter."""

console: Final = Console(stderr=True)
_OURS: Final = ("prectr",)
_log = logging.getLogger("prectr")


class Meter(Protocol):
    """Shows how far a piece of work has come."""

    def update(self, done: float, note: str = "") -> None:
        """Show that `done` of the total is done; `note` is a few words of what else is worth knowing."""


@dataclass(slots=True)
class Logging:
    """What is logged, and how: a level of `LEVELS` and a format of `FORMATS`."""

    level: str = "info"
    form: str = "console"

    @property
    def flags(self) -> list[str]:
        """The options of `prectr` that ask for this, for a child process."""
        return [f"--log-level={self.level}", f"--log-format={self.form}"]


chosen: Final = Logging()
"""What this process was told; `set_up_logging` sets it."""


def set_up_logging(level: str = "info", form: str = "console") -> None:
    """Send log records to stderr: above the bars on a terminal, with time and level elsewhere, or as lines of JSON.

    UsageError: there is no such level or format.
    """
    for option, value, known in (("--log-level", level, LEVELS), ("--log-format", form, FORMATS)):
        if value not in known:
            raise UsageError(f"{option} {value}: there are {', '.join(known)}")
    chosen.level, chosen.form = level, form
    of_ours = getattr(logging, level.upper())
    of_others = max(logging.WARNING, of_ours)
    if form == "json":
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(JsonLines())
        logging.basicConfig(level=of_others, handlers=[lines])
    elif console.is_terminal:
        from rich.logging import RichHandler  # noqa: PLC0415 (most commands log nothing)

        handler: logging.Handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
        logging.basicConfig(level=of_others, format="%(message)s", datefmt="%X", handlers=[handler])
    else:
        logging.basicConfig(level=of_others, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Others' libraries speak only when something is wrong (torch tells of its caches at INFO, on exit).
    for ours in _OURS:
        logging.getLogger(ours).setLevel(of_ours)


def draws() -> bool:
    """Whether stderr is a screen to draw on: a terminal, and not a log for a program."""
    return console.is_terminal and chosen.form != "json"


def say(message: str) -> None:
    """Say why the command has failed: the last line on stderr."""
    if chosen.form == "json":
        logging.getLogger("prectr").error("%s", message)
    else:
        sys.stderr.write(f"prectr: {message}\n")


@contextmanager
def meter(title: str, total: float) -> Iterator[Meter]:
    """Show the progress of one piece of work of `total` (of whatever unit; 0 if there is nothing to do)."""
    if draws():
        with _bar(title, total) as shown:
            yield shown
    else:
        lines = _LogLines(title, total)
        yield lines
        lines.end()


@contextmanager
def _bar(title: str, total: float) -> Iterator[Meter]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total or 1, completed=0 if total else 1, note="")

        class _Bar:
            def update(self, done: float, note: str = "") -> None:
                progress.update(task, completed=done if total else 1, note=note)

        yield _Bar()


class _LogLines:
    def __init__(self, title: str, total: float) -> None:
        self._title = title
        self._total = total
        self._last: tuple[float, str] = (0.0, "")
        self._begun = self._said = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        self._last = (done, note)
        if time.monotonic() - self._said >= _LINE_EVERY:
            self._said = time.monotonic()
            self._say()

    def end(self) -> None:
        self._say(f"done in {time.monotonic() - self._begun:.1f} s")

    def _say(self, *more: str) -> None:
        done, note = self._last
        share = f"{100 * done / self._total:.0f} %" if self._total else "100 %"
        _log.info("%s", ", ".join(part for part in (f"{self._title}: {share}", note, *more) if part))
