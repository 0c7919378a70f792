"""Runs the whole live system on one machine: stream processes and the trainer, kept running and shown."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from prectr.ops.cli.signals import stop_signals
from prectr.ops.live.pipeline_status import REPORT, FlowReader
from prectr.ops.live.status_display import Watch, shown
from prectr.ops.live.supervisor import Child, Patience, supervise
from prectr.state.lock import FolderLock
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, create_topics, partition_count

_PARTITIONS: Final = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """What a live run is told.

    partitions: of topics that are made; None for as many as are there, or 4. metrics_port: of the trainer; the stream
    processes have the next ones, and the monitor the one behind. both, stream, train: flags for the processes of either
    kind, of the stages, and of the trainer. monitor: flags of the monitor; None for none. log: flags before every
    process's command, of how it logs.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    state_dir: Path
    run_dir: Path
    streams: int = 1
    partitions: int | None = None
    until_end: bool = False
    metrics_port: int | None = None
    both: Sequence[str] = ()
    stream: Sequence[str] = ()
    train: Sequence[str] = ()
    monitor: Sequence[str] | None = None
    log: Sequence[str] = ()
    patience: Patience = field(default_factory=Patience)


def run_live(run: LiveRun) -> None:
    """Make the topics that are missing, start all processes and keep them running until asked to stop.

    With `until_end`, until all that is there has gone through. No process is left at the end.

    Raises:
        PrectrError: the broker or the topics do not allow it, or a process cannot be kept running.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        partitions = _ready_topics(run)
        stack.callback(FolderLock(run.state_dir).release)
        children = _children(run)
        patient = replace(run.connection, wait=0.0)
        watch = stack.enter_context(
            Watch(lambda: FlowReader(patient, run.topics, run.group_prefix, partitions), run.run_dir)
        )
        title = f"{run.connection.bootstrap}, {partitions} partitions; report: {run.run_dir / 'report.html'}"
        look = stack.enter_context(shown(title, children, watch))
        supervise(children, stop=stop, look=look, patience=run.patience)


def _ready_topics(run: LiveRun) -> int:
    """Make the topics that are not there; returns how many partitions each has."""
    names = run.connection.ask(lambda admin: admin.list_topics())
    there = partition_count(run.connection, run.topics.events) if run.topics.events in names else None
    partitions = run.partitions or there or _PARTITIONS
    for name in create_topics(run.connection, run.topics, partitions):
        _log.info("%s: made, %d partitions", name, partitions)
    return partitions


def _children(run: LiveRun) -> list[Child]:
    ends = ["--until-end"] if run.until_end else []
    logs = run.run_dir / "logs"
    numbers = range(1, run.streams + 1)
    monitors = [] if run.monitor is None else [_monitor(run, run.monitor)]
    return [
        *(
            Child(
                f"stream-{number}",
                [
                    *(*run.log, "stream", *run.both, *run.stream, *ends, *_metrics(run, number)),
                    *("--state-dir", str(run.state_dir / f"stream-{number}")),
                ],
                logs / f"stream-{number}.log",
                may_end=run.until_end,
                patience=run.patience,
            )
            for number in numbers
        ),
        Child(
            "train",
            [*run.log, "train", *run.both, *run.train, *ends, *_metrics(run, 0), "--run-dir", str(run.run_dir)],
            logs / "train.log",
            may_end=run.until_end,
            patience=run.patience,
        ),
        *monitors,
    ]


def _monitor(run: LiveRun, flags: Sequence[str]) -> Child:
    return Child(
        "monitor",
        [*run.log, "monitor", *flags, *_metrics(run, run.streams + 1), "--data-dir", str(run.run_dir / "monitor")],
        run.run_dir / "logs" / "monitor.log",
        may_end=False,
        patience=run.patience,
    )


def _metrics(run: LiveRun, number: int) -> list[str]:
    return [] if run.metrics_port is None else ["--metrics-port", str(run.metrics_port + number)]


def report_path(run_dir: Path) -> Path:
    """Where the trainer's report lies."""
    return run_dir / REPORT
