"""Runs the whole live system on one machine: supervised stream workers and a trainer, with a status display."""

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
    """Which processes a live run starts, and on which brokers and topics.

    partitions: of topics that are created; None for those of existing topics, else 4. metrics_port: of the trainer;
    the stream workers use the next ones, the monitor the one after. stream_flags, train_flags: for the stream
    processes and the trainer. monitor_flags: for the monitor; None for no monitor. log_flags: how each process logs;
    they precede its command.
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
    stream_flags: Sequence[str] = ()
    train_flags: Sequence[str] = ()
    monitor_flags: Sequence[str] | None = None
    log_flags: Sequence[str] = ()
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)


def run_live(run: LiveRun) -> None:
    """Create missing topics, start all processes and keep them running until a stop is requested.

    With `until_end`, until the topics have been processed to their end. No process is left running.

    Raises:
        PrectrError: the broker or the topics do not allow it, or a process cannot be kept running.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        partitions = _ensure_topics(run)
        stack.callback(FolderLock(run.state_dir).release)
        processes = make_processes(run)
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
    """Create missing topics; returns the number of partitions of each topic."""
    names = run.connection.call_admin(lambda admin: admin.list_topics())
    existing = partition_count(run.connection, run.topics.events) if run.topics.events in names else None
    partitions = run.partitions or existing or _PARTITIONS
    for name in create_topics(run.connection, run.topics, partitions):
        _log.info("%s: created, %d partitions", name, partitions)
    return partitions


def make_processes(run: LiveRun) -> list[ManagedProcess]:
    """The processes of a live run, not started yet."""
    processes = [
        _process(
            run, f"stream-{number}", "stream", [*run.stream_flags, f"--state-dir={run.state_dir / f'stream-{number}'}"]
        )
        for number in range(1, run.stream_workers + 1)
    ]
    processes.append(_process(run, "train", "train", [*run.train_flags, f"--run-dir={run.run_dir}"]))
    if run.monitor_flags is not None:
        flags = [*run.monitor_flags, f"--data-dir={run.run_dir / 'monitor'}"]
        processes.append(_process(run, "monitor", "monitor", flags))
    return processes


def _process(run: LiveRun, name: str, command: str, flags: Sequence[str]) -> ManagedProcess:
    metrics_flags = [] if run.metrics_port is None else [f"--metrics-port={_metrics_port(run, run.metrics_port, name)}"]
    return ManagedProcess(
        name,
        [*run.log_flags, command, *flags, *metrics_flags],
        run.run_dir / "logs" / f"{name}.log",
        may_exit=run.until_end and command != "monitor",
        restart_policy=run.restart_policy,
    )


def _metrics_port(run: LiveRun, first: int, name: str) -> int:
    """The trainer's port is the first, the stream workers' are the next ones, the monitor's is the last."""
    if name == "train":
        return first
    return first + (run.stream_workers + 1 if name == "monitor" else int(name.removeprefix("stream-")))


def report_path(run_dir: Path) -> Path:
    """The path of the trainer's report."""
    return run_dir / REPORT_FILE
