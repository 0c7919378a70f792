"""Runs the whole live system on one machine: supervised stream workers and a trainer, with a status display."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from prectr.ops.cli.signals import stop_signals
from prectr.ops.limits.check import check_limits
from prectr.ops.limits.needs import STAGES, stream_needs
from prectr.ops.live.metrics_ports import TARGETS_FILE, await_free_ports, metrics_port_of
from prectr.ops.live.parent_watchdog import GRACE_PERIOD
from prectr.ops.live.pipeline_status import REPORT_FILE, PipelineStatusReader
from prectr.ops.live.status_display import StatusPoller, display
from prectr.ops.live.supervisor import ManagedProcess, RestartPolicy, supervise
from prectr.state.errors import BrokerUnavailableError, PrectrError
from prectr.state.lock import FolderLock
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, create_topics, partition_count

_PARTITIONS: Final = 4
_PROBE_INTERVAL: Final = 0.5
_LOG_INTERVAL: Final = 60.0
"""Seconds between two messages that the broker is awaited."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """Which processes a live run starts, and on which brokers and topics.

    partitions: of topics that are created; None for those of existing topics, else 4. metrics_port: of the trainer;
    the monitor uses the next one, the stream workers those after. stream_flags, train_flags: for the stream
    processes and the trainer. monitor_flags: for the monitor; None for no monitor. monitor_port: of its page.
    log_flags: how each process logs; they precede its command.
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
    monitor_port: int | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)


def run_live(run: LiveRun) -> None:
    """Create missing topics, start all processes and keep them running until a stop is requested.

    With `until_end`, until the topics have been processed to their end. No process is left running.

    Raises:
        PrectrError: the broker or the topics do not allow it, or a process cannot be kept running.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        found = _wait_for_topics(run, stop)
        if found is None:
            return
        partitions = found
        folders = {"state folder": run.state_dir, "run folder": run.run_dir}
        check_limits(stream_needs(partitions * STAGES, folders))
        stack.callback(FolderLock(run.state_dir).release)
        processes = make_processes(run)
        await_free_ports(_ports(run, processes), stop, 2 * GRACE_PERIOD)
        write_targets(run, processes)
        probe_connection = replace(run.connection, connect_timeout=0.0)
        poller = stack.enter_context(
            StatusPoller(
                lambda: PipelineStatusReader(probe_connection, run.topics, run.group_prefix, partitions), run.run_dir
            )
        )
        title = f"{run.connection.bootstrap}, {partitions} partitions; report: {run.run_dir / 'report.html'}"
        refresh = stack.enter_context(display(title, processes, poller))
        supervise(processes, stop=stop, on_poll=refresh, restart_policy=run.restart_policy)


def _wait_for_topics(run: LiveRun, stop: Callable[[], bool]) -> int | None:
    """As `_ensure_topics`, once the broker answers: after a reboot it may come up later. None if `stop` ended it."""
    logged_at = float("-inf")
    while not stop():
        try:
            return _ensure_topics(run)
        except BrokerUnavailableError as error:
            if run.until_end:
                raise
            reason = error.message
        if time.monotonic() - logged_at >= _LOG_INTERVAL:
            logged_at = time.monotonic()
            _log.warning("%s: waiting for it", reason)
        time.sleep(_PROBE_INTERVAL)
    return None


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
        flags = [*run.monitor_flags, f"--data-dir={run.run_dir / 'monitor'}", f"--port={run.monitor_port}"]
        processes.append(_process(run, "monitor", "monitor", flags))
    return processes


def _ports(run: LiveRun, processes: Sequence[ManagedProcess]) -> list[tuple[str, int]]:
    """The ports that the processes are to listen on, with their names."""
    metrics = [
        (f"metrics of {process.name}", metrics_port_of(run.metrics_port, process.name))
        for process in processes
        if run.metrics_port is not None
    ]
    return metrics if run.monitor_port is None else [*metrics, ("the monitor's page", run.monitor_port)]


def _process(run: LiveRun, name: str, command: str, flags: Sequence[str]) -> ManagedProcess:
    metrics_flags = [] if run.metrics_port is None else [f"--metrics-port={metrics_port_of(run.metrics_port, name)}"]
    return ManagedProcess(
        name,
        [*run.log_flags, command, *flags, *metrics_flags],
        run.run_dir / "logs" / f"{name}.log",
        may_exit=run.until_end and command != "monitor",
        restart_policy=run.restart_policy,
        is_outage=partial(_is_away, run.connection),
    )


def _is_away(connection: Connection) -> bool:
    """Whether the broker does not answer now: no failure of a process counts then."""
    try:
        replace(connection, connect_timeout=0.0).admin().close()
    except BrokerUnavailableError:
        return True
    except PrectrError:
        return False
    return False


def write_targets(run: LiveRun, processes: Sequence[ManagedProcess]) -> Path | None:
    """Write the scrape targets of the processes for `file_sd_configs` of Prometheus; returns the file."""
    if run.metrics_port is None:
        return None
    groups: dict[str, list[str]] = {}
    for process in processes:
        target = f"127.0.0.1:{metrics_port_of(run.metrics_port, process.name)}"
        groups.setdefault(process.name.partition("-")[0], []).append(target)
    path = run.run_dir / TARGETS_FILE
    # Prometheus reads the file whenever it changes, so it must be whole at any time.
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(
        msgspec.json.format(
            msgspec.json.encode([{"labels": {"job": job}, "targets": targets} for job, targets in groups.items()])
        )
        + b"\n"
    )
    temporary.replace(path)
    return path


def report_path(run_dir: Path) -> Path:
    """The path of the trainer's report."""
    return run_dir / REPORT_FILE
