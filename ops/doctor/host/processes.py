"""The processes that `prectr run` started: whether they answer, and what each has said when it last failed."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host.lock_holder import lock_holder, running_seconds
from prectr.ops.live.log_tail import final_error
from prectr.ops.live.metrics_ports import TARGETS_FILE

_TIMEOUT: Final = 0.5
_TAIL_BYTES: Final = 1 << 18
_PROVEN: Final = 60.0
"""Seconds after which a process that runs has passed what stopped it before: as `prectr run` counts failures."""


class _TargetGroup(msgspec.Struct, frozen=True):
    """Scrape targets of one kind of process, as in the file for Prometheus."""

    targets: list[str]
    labels: dict[str, str] = {}


def check_targets(run_dir: Path | None, *, waits: bool) -> Iterator[Finding]:
    """Connect to the metrics ports that `prectr run` has written down. waits: whether records wait to be processed."""
    if run_dir is None or not (run_dir / TARGETS_FILE).exists():
        return
    try:
        groups = msgspec.json.decode((run_dir / TARGETS_FILE).read_bytes(), type=list[_TargetGroup])
    except (OSError, msgspec.DecodeError) as error:
        yield Finding("processes", "warning", f"{run_dir / TARGETS_FILE} cannot be read: {error}", "restart prectr run")
        return
    targets = [(group.labels.get("job", ""), target) for group in groups for target in group.targets]
    with ThreadPoolExecutor(16) as threads:
        are_up = list(threads.map(lambda each: _takes_connections(each[1]), targets))
    down = [each for each, is_up in zip(targets, are_up, strict=True) if not is_up]
    if not down:
        yield Finding("processes", "ok", f"all {len(targets)} of {run_dir / TARGETS_FILE} take connections")
        return
    names = ", ".join(f"{job} {target}" for job, target in down)
    observed = f"{len(down)} of {len(targets)} of {run_dir / TARGETS_FILE} take no connections: {names}"
    is_error = waits and any(
        all(each in down for each in targets if each[0] == job) for job, _ in down if job != "monitor"
    )
    advice = f"start prectr run again; {run_dir / 'logs'} says why they ended"
    yield Finding("processes", "error" if is_error else "warning", observed, advice)


def _takes_connections(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        with closing(socket.create_connection((host, int(port)), _TIMEOUT)):
            return True
    except (OSError, ValueError):
        return False


def check_logs(run_dir: Path | None, state_dir: Path | None) -> Iterator[Finding]:
    """Repeat the last error with which each process of `prectr run` ended, unless it has run well since."""
    if run_dir is None:
        return
    for log in sorted((run_dir / "logs").glob("*.log")):
        try:
            message = _last_error(log)
        except OSError as error:
            yield Finding(f"log {log}", "warning", f"cannot be read: {error.strerror}", "run as a user who may read it")
            continue
        if not message:
            continue
        pid = lock_holder(_lock(log.stem, run_dir, state_dir or run_dir / "state"))
        seconds = None if pid is None else running_seconds(pid)
        if seconds is not None and seconds > _PROVEN:
            yield Finding(f"process {log.stem}", "ok", f"runs, and ended before with: {message}")
        elif seconds is not None:
            observed = f"was restarted {seconds:.0f} s ago, after: {message}"
            yield Finding(f"process {log.stem}", "warning", observed, f"see {log}")
        else:
            yield Finding(f"process {log.stem}", "error", f"has ended with: {message}", f"see {log}")


def _lock(name: str, run_dir: Path, state_dir: Path) -> Path:
    """The lock that a process of this name holds while it runs."""
    folder = {"train": run_dir, "monitor": run_dir / "monitor"}.get(name, state_dir / name)
    return folder / ".lock"


def _last_error(log: Path) -> str:
    """The last error in a log with which its process ended; empty if there is none near the end."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return next((error for line in reversed(lines) if (error := final_error(line))), "")
