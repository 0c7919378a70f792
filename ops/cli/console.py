"""Progress and log output on stderr: progress bars on a terminal, log lines elsewhere or if configured."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from prectr.ops.cli.log_format import FORMATS, SEVERITIES, JsonFormatter, LineFormatter
from prectr.ops.cli.output import EscapingConsole
from prectr.ops.cli.terminal_escape import printable_lines
from prectr.state.errors import UsageError

_LOG_INTERVAL: Final = 10.0
"""Seconds between two log lines of a progress bar."""

console: Final = EscapingConsole(stderr=True)
_PACKAGES: Final = ("prectr",)
_log = logging.getLogger("prectr")


class ProgressBar(Protocol):
    """Shows the progress of a piece of work."""

    def update(self, done: float, note: str = "") -> None:
        """Show that `done` of the total is done. note: a few words to show beside it."""


@dataclass(slots=True)
class LogSettings:
    """The lowest severity that is logged, of `SEVERITIES`, and the format, of `FORMATS`."""

    severity: str = "info"
    log_format: str = "console"

    @property
    def flags(self) -> list[str]:
        """These settings as options of `prectr`, for a child process."""
        return [f"--log-level={self.severity}", f"--log-format={self.log_format}"]


log_settings: Final = LogSettings()
"""The settings of this process, set by `set_up_logging`."""


def set_up_logging(severity: str = "info", log_format: str = "console") -> None:
    """Send log records to stderr: above the bars on a terminal, with time and severity elsewhere, or as JSON lines.

    Raises:
        UsageError: the severity or the format is unknown.
    """
    for option, value, known in (("--log-level", severity, SEVERITIES), ("--log-format", log_format, FORMATS)):
        if value not in known:
            raise UsageError(f"{option} {value}: must be one of {', '.join(known)}")
    log_settings.severity, log_settings.log_format = severity, log_format
    own_severity = getattr(logging, severity.upper())
    library_severity = max(logging.WARNING, own_severity)
    if log_format == "json":
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(JsonFormatter())
        logging.basicConfig(level=library_severity, handlers=[lines])
    elif console.is_terminal:
        from rich.logging import RichHandler  # noqa: PLC0415 (most commands log nothing)

        handler: logging.Handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
        logging.basicConfig(level=library_severity, format="%(message)s", datefmt="%X", handlers=[handler])
    else:
        plain = logging.StreamHandler(sys.stderr)
        plain.setFormatter(LineFormatter())
        logging.basicConfig(level=library_severity, handlers=[plain])
    # Libraries log warnings and errors only (torch logs its caches at INFO on exit).
    for ours in _PACKAGES:
        logging.getLogger(ours).setLevel(own_severity)


def is_interactive() -> bool:
    """Whether stderr is a terminal and the log format is not JSON."""
    return console.is_terminal and log_settings.log_format != "json"


def print_error(message: str) -> None:
    """Print why the command has failed, as the last line on stderr."""
    if log_settings.log_format == "json":
        logging.getLogger("prectr").error("%s", message)
    else:
        sys.stderr.write(f"prectr: {printable_lines(message)}\n")


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[ProgressBar]:
    """Show the progress of a piece of work. total: in any unit; 0 if there is nothing to do."""
    if is_interactive():
        with _terminal_bar(title, total) as bar:
            yield bar
    else:
        log_progress = _LogProgress(title, total)
        yield log_progress
        log_progress.finish()


@contextmanager
def _terminal_bar(title: str, total: float) -> Iterator[ProgressBar]:
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


class _LogProgress:
    def __init__(self, title: str, total: float) -> None:
        self._title = title
        self._total = total
        self._latest: tuple[float, str] = (0.0, "")
        self._started_at = self._logged_at = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        self._latest = (done, note)
        if time.monotonic() - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = time.monotonic()
            self._emit()

    def finish(self) -> None:
        self._emit(f"done in {time.monotonic() - self._started_at:.1f} s")

    def _emit(self, *more: str) -> None:
        done, note = self._latest
        percent = f"{100 * done / self._total:.0f} %" if self._total else "100 %"
        _log.info("%s", ", ".join(part for part in (f"{self._title}: {percent}", note, *more) if part))
