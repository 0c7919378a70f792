"""What `prectr run` shows while it runs: one table on a terminal, a log line now and then elsewhere."""

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

from prectr.ops.cli.console import console, draws
from prectr.ops.live.pipeline_status import Flow, FlowReader, Learned, read_learned
from prectr.ops.live.supervisor import Child
from prectr.state.errors import PrectrError

_ASK_EVERY: Final = 2.0
"""Seconds between two questions to the broker."""
_LINE_EVERY: Final = 10.0
_LEAVE_SECONDS: Final = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the system. change: of each model's AUC and GAUC since the report before. trouble: of asking."""

    flow: Flow | None = None
    learned: Learned = field(default_factory=Learned)
    change: dict[str, tuple[float, float]] | None = None
    trouble: str = ""

    def with_learned(self, learned: Learned) -> "Seen":
        """With a newer report."""
        if learned == self.learned:
            return self
        before = {each.model: each for each in self.learned.models}
        change = {
            now.model: ((now.auc or 0) - (was.auc or 0), (now.gauc or 0) - (was.gauc or 0))
            for now in learned.models
            if (was := before.get(now.model)) is not None and was.auc is not None and was.gauc is not None
        }
        return replace(self, learned=learned, change=change)


class Watch:
    """Looks at the system from a thread of its own, so that a broker that does not answer holds nobody up."""

    def __init__(self, make_reader: Callable[[], FlowReader], run_dir: Path) -> None:
        self._make_reader = make_reader
        self._run_dir = run_dir
        self._lock = Lock()
        self._seen = Seen()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_LEAVE_SECONDS)

    @property
    def seen(self) -> Seen:
        """What it saw last."""
        with self._lock:
            return self._seen

    def _run(self) -> None:
        reader: FlowReader | None = None
        try:
            while not self._stop.is_set():
                seen = self.seen
                try:
                    reader = reader or self._make_reader()
                    seen = replace(seen, flow=reader.read(), trouble="")
                except PrectrError as error:
                    seen = replace(seen, trouble=str(error))
                seen = seen.with_learned(read_learned(self._run_dir) or seen.learned)
                with self._lock:
                    self._seen = seen
                self._stop.wait(_ASK_EVERY)
        finally:
            if reader is not None:
                reader.close()


@contextmanager
def shown(title: str, children: Sequence[Child], watch: Watch) -> Iterator[Callable[[], None]]:
    """Show the system; what is yielded is to be called often, and brings it up to date."""
    begun = time.monotonic()
    if draws():
        with Live(console=console, auto_refresh=False, transient=False) as live:
            last = 0.0

            def draw() -> None:
                nonlocal last
                if time.monotonic() - last >= 0.5:
                    last = time.monotonic()
                    live.update(drawn(title, last - begun, children, watch.seen), refresh=True)

            yield draw
        return
    said = begun

    def say() -> None:
        nonlocal said
        if time.monotonic() - said >= _LINE_EVERY:
            said = time.monotonic()
            _log.info("%s", line(watch.seen))

    yield say
    _log.info("%s", line(watch.seen))


def line(seen: Seen) -> str:
    """The system in a line."""
    if seen.flow is None:
        return seen.trouble or "starting"
    parts = [
        f"{seen.flow.events:,} events ({sum(seen.flow.unread):,} unread)",
        f"{seen.flow.closed:,} pages closed",
        f"{seen.flow.examples:,} examples",
        f"{seen.learned.pages:,} learned",
        *(f"{each.model} AUC {_figure(each.auc)} GAUC {_figure(each.gauc)}" for each in seen.learned.models),
    ]
    return "; ".join([*parts, seen.trouble] if seen.trouble else parts)


def drawn(title: str, seconds: float, children: Sequence[Child], seen: Seen) -> Group:
    """The system as a table."""
    processes = Text("  ".join(_state(child) for child in children))
    table = Table(title=f"{title}, {_clock(seconds)}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    flow = seen.flow
    if flow is not None:
        unread = " ".join(f"{count:,}" for count in flow.unread)
        table.add_row("events", f"{flow.events:,}", f"{sum(flow.unread):,} unread; by partition {unread}")
        table.add_row("pages closed", f"{flow.closed:,}", "clicks joined, labels final")
        table.add_row("examples", f"{flow.examples:,}", f"{flow.closed - flow.examples:,} pages wait for their turn")
    waiting = "" if flow is None else f"{max(flow.examples - seen.learned.pages, 0):,} newer than the last checkpoint"
    table.add_row("learned", f"{seen.learned.pages:,}", waiting)
    for each in seen.learned.models:
        auc, gauc = (seen.change or {}).get(each.model, (0.0, 0.0))
        change = f"{auc:+.4f}, {gauc:+.4f} since the checkpoint before" if auc or gauc else ""
        table.add_row(each.model, f"AUC {_figure(each.auc)}  GAUC {_figure(each.gauc)}", change)
    return Group(table, processes, Text(seen.trouble, style="yellow"))


def _state(child: Child) -> str:
    state = "running" if child.running else "ended" if child.done else "waiting to start again"
    again = f" (started again {child.restarts}×)" if child.restarts else ""
    return f"{child.name}: {state}{again}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
