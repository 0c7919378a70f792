"""The status display of `prectr run`: a table on a terminal, periodic log lines elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prectr.ops.cli.console import console, is_interactive
from prectr.ops.live.pipeline_status import PipelineStatus, PipelineStatusReader, TrainerReport, read_trainer_report
from prectr.ops.live.supervisor import ManagedProcess
from prectr.ops.report.numbers import duration, fixed
from prectr.state.errors import PrectrError
from prectr.stream.ordering.arrivals import Arrivals

_POLL_INTERVAL: Final = 2.0
"""Seconds between two requests to the broker."""
_LOG_INTERVAL: Final = 10.0
_SILENCE_LOG_INTERVAL: Final = 60.0
"""Seconds between two warnings that no event arrives."""
_JOIN_TIMEOUT: Final = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DisplayState:
    """What is known of the system.

    quality_change: change of AUC and GAUC since the previous report, by model. silence: seconds since an event arrived,
    if that is conspicuous; else None. error: of the last poll; empty if none.
    """

    pipeline: PipelineStatus | None = None
    trainer: TrainerReport = field(default_factory=TrainerReport)
    quality_change: dict[str, tuple[float, float]] | None = None
    silence: float | None = None
    error: str = ""

    def with_trainer(self, trainer: TrainerReport) -> "DisplayState":
        """This state with a newer report."""
        if trainer == self.trainer:
            return self
        previous = {each.model: each for each in self.trainer.models}
        quality_change = {
            now.model: ((now.auc or 0) - (was.auc or 0), (now.gauc or 0) - (was.gauc or 0))
            for now in trainer.models
            if (was := previous.get(now.model)) is not None and was.auc is not None and was.gauc is not None
        }
        return replace(self, trainer=trainer, quality_change=quality_change)


class StatusPoller:
    """Polls the system in a separate thread, so that an unresponsive broker does not block the supervisor."""

    def __init__(self, make_reader: Callable[[], PipelineStatusReader], run_dir: Path) -> None:
        self._make_reader = make_reader
        self._run_dir = run_dir
        self._lock = Lock()
        self._state = DisplayState()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="status-poller", daemon=True)

    def __enter__(self) -> "StatusPoller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT)

    @property
    def state(self) -> DisplayState:
        """The latest state."""
        with self._lock:
            return self._state

    def _run(self) -> None:
        reader: PipelineStatusReader | None = None
        silence = InputSilence()
        try:
            while not self._stop.is_set():
                state = self.state
                try:
                    reader = reader or self._make_reader()
                    pipeline = reader.read()
                    silent_for = silence.seconds(pipeline.events, time.time())
                    state = replace(state, pipeline=pipeline, silence=silent_for, error="")
                except PrectrError as error:
                    state = replace(state, silence=None, error=str(error))
                state = state.with_trainer(read_trainer_report(self._run_dir) or state.trainer)
                with self._lock:
                    self._state = state
                self._stop.wait(_POLL_INTERVAL)
        finally:
            if reader is not None:
                reader.close()


class InputSilence:
    """Notices that no event arrives any more. What came before the first call is not known."""

    def __init__(self) -> None:
        self._arrivals = Arrivals()
        self._events: int | None = None

    def seconds(self, events: int, now: float) -> float | None:
        """Return the seconds without an event if they are conspicuous; else None.

        Args:
            events: number of events since the start of the log.
            now: seconds since the epoch.
        """
        at = round(now * 1000)
        if self._events is not None and events > self._events:
            self._arrivals.observe(at, at, events - self._events)
        self._events = events
        if self._arrivals.newest is None or at - self._arrivals.newest <= self._arrivals.longest_usual_silence:
            return None
        return (at - self._arrivals.newest) / 1000


def silence_warning(seconds: float) -> str:
    """The warning about a silent producer."""
    return f"no event has arrived for {duration(seconds)}, far longer than usual: does the producer run?"


@contextmanager
def display(title: str, processes: Sequence[ManagedProcess], poller: StatusPoller) -> Iterator[Callable[[], None]]:
    """Show the system. Yields a function that refreshes the display; call it often."""
    started = time.monotonic()
    if is_interactive():
        with Live(console=console, auto_refresh=False, transient=False) as live:
            last_drawn = 0.0

            def draw() -> None:
                nonlocal last_drawn
                if time.monotonic() - last_drawn >= 0.5:
                    last_drawn = time.monotonic()
                    live.update(render(title, last_drawn - started, processes, poller.state), refresh=True)

            yield draw
        return
    last_logged = started
    last_warned = float("-inf")

    def log_status() -> None:
        nonlocal last_logged, last_warned
        silence = poller.state.silence
        if silence is not None and time.monotonic() - last_warned >= _SILENCE_LOG_INTERVAL:
            last_warned = time.monotonic()
            _log.warning("%s", silence_warning(silence))
        if time.monotonic() - last_logged >= _LOG_INTERVAL:
            last_logged = time.monotonic()
            _log.info("%s", summary(poller.state))

    yield log_status
    _log.info("%s", summary(poller.state))


def summary(state: DisplayState) -> str:
    """The state as one line."""
    if state.pipeline is None:
        return state.error or "starting"
    parts = [
        f"{state.pipeline.events:,} events (lag {sum(state.pipeline.lag):,})",
        f"{state.pipeline.joined_pages:,} pages closed",
        f"{state.pipeline.examples:,} examples",
        f"{state.trainer.pages:,} trained",
        *(f"{each.model} AUC {fixed(each.auc)} GAUC {fixed(each.gauc)}" for each in state.trainer.models),
    ]
    return "; ".join([*parts, state.error] if state.error else parts)


def render(title: str, seconds: float, process_list: Sequence[ManagedProcess], state: DisplayState) -> Group:
    """The state as a table."""
    process_states = Text("  ".join(_process_state(process) for process in process_list))
    table = Table(title=f"{title}, {_elapsed(seconds)}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    pipeline = state.pipeline
    if pipeline is not None:
        lag = " ".join(f"{count:,}" for count in pipeline.lag)
        table.add_row("events", f"{pipeline.events:,}", f"lag {sum(pipeline.lag):,}; by partition {lag}")
        table.add_row("pages closed", f"{pipeline.joined_pages:,}", "clicks joined, labels final")
        table.add_row(
            "examples",
            f"{pipeline.examples:,}",
            f"{pipeline.joined_pages - pipeline.examples:,} pages in the merge",
        )
    unsaved = (
        ""
        if pipeline is None
        else f"{max(pipeline.examples - state.trainer.pages, 0):,} newer than the last checkpoint"
    )
    table.add_row("trained", f"{state.trainer.pages:,}", unsaved)
    for each in state.trainer.models:
        auc, gauc = (state.quality_change or {}).get(each.model, (0.0, 0.0))
        change = f"{auc:+.4f}, {gauc:+.4f} since the previous checkpoint" if auc or gauc else ""
        table.add_row(each.model, f"AUC {fixed(each.auc)}  GAUC {fixed(each.gauc)}", change)
    warnings = [state.error] if state.silence is None else [state.error, silence_warning(state.silence)]
    return Group(table, process_states, Text("\n".join(filter(None, warnings)), style="yellow"))


def _process_state(process: ManagedProcess) -> str:
    state = "running" if process.running else "done" if process.completed else "waiting to restart"
    restarts = f" (restarted {process.restarts}×)" if process.restarts else ""
    return f"{process.name}: {state}{restarts}"


def _elapsed(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
