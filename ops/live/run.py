"""Runs the whole live system on one machine: stream processes and the trainer, kept running and shown."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from prectr.ops.cli.signals import stop_signals
from prectr.ops.live.pipeline_status import REPORT_FILE, PipelineStatusReader
from prectr.ops.live.status_display import StatusPoller, display
from prectr.ops.live.supervisor import ManagedProcess, RestartPolicy, supervise
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
    stream_workers: int = 1
    partitions: int | None = None
    until_end: bool = False
    metrics_port: int | None = None
    common_flags: Sequence[str] = ()
    stream_flags: Sequence[str] = ()
    train_flags: Sequence[str] = ()
    monitor_flags: Sequence[str] | None = None
    log_flags: Sequence[str] = ()
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)


def run_live(run: LiveRun) -> None:
    """Make the topics that are missing, start all processes and keep them running until asked to stop.

    With `until_end`, until all that is there has gone through. No process is left at the end.

    Raises:
        PrectrError: the broker or the topics do not allow it, or a process cannot be kept running.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        partitions = _ensure_topics(run)
        stack.callback(FolderLock(run.state_dir).release)
        processes = _processes(run)
        probe_connection = replace(run.connection, connect_timeout=0.0)
        poller = stack.enter_context(
            StatusPoller(
                lambda: PipelineStatusReader(probe_connection, run.topics, run.group_prefix, partitions), run.run_dir
            )
        )
        title = f"{run.connection.bootstrap}, {partitions} partitions; report: {run.run_dir / 'report.html'}"
        refresh = stack.enter_context(display(title, processes, poller))
        supervise(processes, stop=stop, on_poll=refresh, restart_policy=run.restart_policy)


def _ensure_topics(run: LiveRun) -> int:
    """Make the topics that are not there; returns how many partitions each has."""
    names = run.connection.call_admin(lambda admin: admin.list_topics())
    existing = partition_count(run.connection, run.topics.events) if run.topics.events in names else None
    partitions = run.partitions or existing or _PARTITIONS
    for name in create_topics(run.connection, run.topics, partitions):
        _log.info("%s: made, %d partitions", name, partitions)
    return partitions


def _processes(run: LiveRun) -> list[ManagedProcess]:
    end_flags = ["--until-end"] if run.until_end else []
    log_dir = run.run_dir / "logs"
    numbers = range(1, run.stream_workers + 1)
    monitors = [] if run.monitor_flags is None else [_monitor_process(run, run.monitor_flags)]
    return [
        *(
            ManagedProcess(
                f"stream-{number}",
                [
                    *(
                        *run.log_flags,
                        "stream",
                        *run.common_flags,
                        *run.stream_flags,
                        *end_flags,
                        *_metrics_flags(run, number),
                    ),
                    *("--state-dir", str(run.state_dir / f"stream-{number}")),
                ],
                log_dir / f"stream-{number}.log",
                may_exit=run.until_end,
                restart_policy=run.restart_policy,
            )
            for number in numbers
        ),
        ManagedProcess(
            "train",
            [
                *run.log_flags,
                "train",
                *run.common_flags,
                *run.train_flags,
                *end_flags,
                *_metrics_flags(run, 0),
                "--run-dir",
                str(run.run_dir),
            ],
            log_dir / "train.log",
            may_exit=run.until_end,
            restart_policy=run.restart_policy,
        ),
        *monitors,
    ]


def _monitor_process(run: LiveRun, flags: Sequence[str]) -> ManagedProcess:
    return ManagedProcess(
        "monitor",
        [
            *run.log_flags,
            "monitor",
            *flags,
            *_metrics_flags(run, run.stream_workers + 1),
            "--data-dir",
            str(run.run_dir / "monitor"),
        ],
        run.run_dir / "logs" / "monitor.log",
        may_exit=False,
        restart_policy=run.restart_policy,
    )


def _metrics_flags(run: LiveRun, number: int) -> list[str]:
    return [] if run.metrics_port is None else ["--metrics-port", str(run.metrics_port + number)]


def report_path(run_dir: Path) -> Path:
    """Where the trainer's report lies."""
    return run_dir / REPORT_FILE
