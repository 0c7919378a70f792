"""Faults of disks and snapshots: full, lost, truncated, interrupted."""

import resource
import shutil
from pathlib import Path
from typing import Final

from tests.faults import snapshots
from tests.faults.injection.processes import FAILPOINT_TIMEOUT, await_death, kill_at_failpoint
from tests.faults.injection.restart import (
    EXIT_TIMEOUT,
    Injected,
    await_reports,
    describe_process,
    look_at_metrics,
    restart,
)
from tests.faults.system import STREAMS, LiveSystem

DISK_FULL_STREAM: Final = STREAMS[0]
"""The process whose disk runs full."""
_NOTICE_TIMEOUT: Final = 20.0


def lose_state(system: LiveSystem) -> Injected:
    name = system.rng.choice(system.victims(*STREAMS))
    system.run_for(system.rng.uniform(0, 2))
    look_at_metrics(system, name)
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    # It may not have got as far as making it.
    shutil.rmtree(system.state_dir(name), ignore_errors=True)
    source = "the log" if system.snapshots is None else "a snapshot or the log"
    restarted = restart(system, name)
    return Injected(f"kill -9 of stream process {name}, its state deleted (rebuilt from {source}){restarted}", recovery)


def disk_full(system: LiveSystem) -> Injected:
    name = DISK_FULL_STREAM
    volume = system.volume(name)
    process = system.running[name]
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(name)
    if volume is not None:
        volume.fill()
        expected_message = "No space left"
    else:
        # Where no small disk can be mounted: no file of the process may grow much more.
        max_file_size = 4096 + max((path.stat().st_size for path in system.state_dir(name).rglob("*.log")), default=0)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
        expected_message = "could not be written"
    if not system.wait_until(lambda: process.poll() is not None, EXIT_TIMEOUT, may_end=(name,)):
        raise AssertionError(f"{name} went on for {EXIT_TIMEOUT:.0f} s on a full disk")
    stderr = system.live.stderr_of(process)
    system.remove_if_ended(name)
    last = (stderr.strip().splitlines() or [""])[-1]
    if process.returncode != 1 or expected_message not in last or "Traceback" in stderr:
        raise AssertionError(
            f"on a full disk {name} ended with exit code {process.returncode} and no clear message:\n{stderr[-3000:]}"
        )
    if volume is not None:
        await_reports(system)
        volume.release()
    else:
        # A limit of one process cannot be seen from another.
        system.watch.expect_nothing("finding")
    description = "its state's disk is full" if volume is not None else "its files may not grow"
    return Injected(
        f"stream process {name}: {description}, it reports that and ends{restart(system, name)} with space", recovery
    )


def truncated_snapshot(system: LiveSystem) -> Injected:
    folder = _wait_for_snapshots(system)
    name = system.rng.choice(system.victims(*STREAMS))
    look_at_metrics(system, name)
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    description = snapshots.truncate_newest(folder, system.rng)
    # It may not have got as far as making it.
    shutil.rmtree(system.state_dir(name), ignore_errors=True)
    restarted = restart(system, name)
    # If it restarts slowly, the others take over with their own state, and store newer snapshots meanwhile.
    noticed = system.wait_until(lambda: system.any_logged("is corrupt"), _NOTICE_TIMEOUT)
    if not noticed:
        system.watch.expect_nothing("metric", "log")
    detection = "which is reported" if noticed else "which no process had to read"
    return Injected(
        f"kill -9 of stream process {name}, its state deleted; {description}, {detection}{restarted}", recovery
    )


def kill_in_snapshot(system: LiveSystem) -> Injected:
    return kill_at_failpoint(
        system, (system.rng.choice(system.victims(*STREAMS)),), "snapshot", system.rng.randint(1, 3)
    )


def kill_in_restore(system: LiveSystem) -> Injected:
    _wait_for_snapshots(system)
    name = system.rng.choice(system.victims(*STREAMS))
    look_at_metrics(system, name)
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    # It may not have got as far as making it.
    shutil.rmtree(system.state_dir(name), ignore_errors=True)
    number = system.rng.randint(1, 2)
    system.schedule_kill(name, "restore", number)
    system.start(name)
    await_death(system, (name,), "restore")
    restarted = restart(system, name)
    return Injected(
        f"{describe_process(name)} loses its state, kill -9 at restore, passing {number}{restarted}", recovery
    )


def _wait_for_snapshots(system: LiveSystem) -> Path:
    folder = system.snapshots
    assert folder is not None
    if not system.wait_until(
        lambda: snapshots.all_tasks_have_two(folder, 2 * system.live.partitions), FAILPOINT_TIMEOUT
    ):
        raise AssertionError(f"not every task had two snapshots stored in {FAILPOINT_TIMEOUT:.0f} s of work")
    return folder
