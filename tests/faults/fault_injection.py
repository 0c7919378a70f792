"""The faults: what each does to the system, and how the operator puts it right."""

import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults import snapshots
from tests.faults.output_probe import RecoveryTimer
from tests.faults.plan import STREAM_FAILPOINTS
from tests.faults.system import SESSION_SECONDS, STREAMS, TRAINER, LiveSystem

THIRD_STREAM: Final = "3"
_FAILPOINT_TIMEOUT: Final = 90.0
_REBALANCE_TIMEOUT: Final = 15.0
"""Seconds in which a process at work passes any point."""
_EXIT_TIMEOUT: Final = 90.0
_FAILOVER_TIMEOUT: Final = 20.0
_MAX_RESTART_DELAY: Final = 1.5
"""At most so many seconds after a crash, the operator starts the process again."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What was done, in words, and what is waited for since the moment of harm."""

    description: str
    recovery: RecoveryTimer


def _kill_stream(system: LiveSystem) -> Injected:
    name = system.rng.choice(STREAMS)
    return _kill_and_restart(system, name, f"stream process {name}")


def _kill_trainer(system: LiveSystem) -> Injected:
    return _kill_and_restart(system, TRAINER, "the trainer")


def _kill_and_restart(system: LiveSystem, name: str, description: str) -> Injected:
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    return Injected(f"kill -9 of {description}{_restart(system, name)}", recovery)


def _restart(system: LiveSystem, name: str) -> str:
    seconds = system.rng.choice((0.0, system.rng.uniform(0, _MAX_RESTART_DELAY)))
    system.run_for(seconds)
    system.start(name)
    return f", started again after {seconds:.1f} s"


def _kill_stream_at_failpoint(system: LiveSystem) -> Injected:
    name, failpoint = system.rng.choice(STREAMS), system.rng.choice(STREAM_FAILPOINTS)
    return _kill_at_failpoint(system, (name,), failpoint, system.rng.randint(1, 12))


def _kill_in_checkpoint(system: LiveSystem) -> Injected:
    return _kill_at_failpoint(system, (TRAINER,), "checkpoint", system.rng.randint(1, 2))


def _kill_in_snapshot(system: LiveSystem) -> Injected:
    return _kill_at_failpoint(system, (system.rng.choice(STREAMS),), "snapshot", system.rng.randint(1, 3))


def _kill_at_failpoint(system: LiveSystem, names: tuple[str, ...], failpoint: str, hit: int) -> Injected:
    """Whichever passes the point first is killed there."""
    for name in names:
        system.schedule_kill(name, failpoint, hit)
    dead = _await_death(system, names, failpoint)
    recovery = system.start_recovery_timer(dead)
    return Injected(f"kill -9 of {_describe(dead)} at {failpoint}, passing {hit}{_restart(system, dead)}", recovery)


def _await_death(system: LiveSystem, names: tuple[str, ...], failpoint: str) -> str:
    dead = _first_killed(system, names, failpoint, _FAILPOINT_TIMEOUT)
    if dead is None:
        raise AssertionError(
            f"{' and '.join(names)} did not pass the point {failpoint} in {_FAILPOINT_TIMEOUT:.0f} s of work"
        )
    return dead


def _first_killed(system: LiveSystem, names: tuple[str, ...], failpoint: str, seconds: float) -> str | None:
    """The first of them that was killed at its point; None where none was in so many seconds."""
    dead: list[str] = []

    def died() -> bool:
        dead.extend(name for name in names if system.running[name].poll() is not None)
        return bool(dead)

    if not system.wait_until(died, seconds, may_end=names):
        return None
    for name in names:
        if not system.cancel_kill(name) and name not in dead:
            # Both passed the point at the same moment.
            system.running[name].wait(_EXIT_TIMEOUT)
            dead.append(name)
    for name in dead:
        code = system.running[name].returncode
        if code != -signal.SIGKILL:
            stderr = system.live.stderr_of(system.running[name])[-3000:]
            raise AssertionError(f"{name} was to be killed at {failpoint}, and ended with exit code {code}:\n{stderr}")
        system.remove_if_ended(name)
    for other in dead[1:]:
        system.start(other)
    return dead[0]


def _kill_in_rebalance(system: LiveSystem) -> Injected:
    """A third process makes tasks move; it leaves when all is well again.

    If it joins while others are restarting, it is assigned tasks without an owner, and joins once more.
    """
    for name in STREAMS:
        system.schedule_kill(name, "rebalance", 1)
    system.start(THIRD_STREAM)
    dead = _first_killed(system, STREAMS, "rebalance", _REBALANCE_TIMEOUT)
    if dead is None:
        in_time = [name for name in STREAMS if system.cancel_kill(name)]
        if len(in_time) == len(STREAMS):
            _stop_third_stream(system)
            system.start(THIRD_STREAM)
        for name in in_time:
            system.schedule_kill(name, "rebalance", 1)
        dead = _await_death(system, STREAMS, "rebalance")
    recovery = system.start_recovery_timer(dead)
    restarted = _restart(system, dead)
    system.wait_for_recovery(recovery)
    _stop_third_stream(system)
    return Injected(f"a third process joins, kill -9 of {_describe(dead)} in the rebalance{restarted}", recovery)


def _kill_broker(system: LiveSystem) -> Injected:
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(STREAMS[0])
    system.broker.kill()
    seconds = system.rng.choice((0.0, system.rng.uniform(0, 3)))
    system.run_for(seconds)
    system.broker.start()
    return Injected(f"kill -9 of the broker, started again after {seconds:.1f} s", recovery)


def _zombie(system: LiveSystem) -> Injected:
    """It wakes as others take over its tasks, or when they have done so and put out again."""
    name = system.rng.choice(STREAMS)
    seconds = SESSION_SECONDS + system.rng.uniform(1.5, 4)
    late = system.rng.random() < 0.5
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(name)
    stopped = time.monotonic()
    system.running[name].send_signal(signal.SIGSTOP)
    system.run_for(seconds)
    if late:
        system.wait_until(lambda: recovery.seconds is not None, _FAILOVER_TIMEOUT)
    system.running[name].send_signal(signal.SIGCONT)
    when = "when others emitted in its stead, " if late and recovery.seconds is not None else ""
    asleep = time.monotonic() - stopped
    return Injected(f"SIGSTOP of stream process {name}, {when}after {asleep:.1f} s SIGCONT", recovery)


def _lose_state(system: LiveSystem) -> Injected:
    name = system.rng.choice(STREAMS)
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    shutil.rmtree(system.state_dir(name))
    source = "the log" if system.snapshots is None else "a snapshot or the log"
    restarted = _restart(system, name)
    return Injected(f"kill -9 of stream process {name}, its state deleted (rebuilt from {source}){restarted}", recovery)


def _third_process(system: LiveSystem) -> Injected:
    system.start(THIRD_STREAM)
    stay_seconds = system.rng.uniform(2, 6)
    system.run_for(stay_seconds)
    recovery = system.start_recovery_timer(THIRD_STREAM)
    outcome = _stop_third_stream(system, graceful=system.rng.random() < 0.5)
    return Injected(f"a third process joins, and leaves after {stay_seconds:.1f} s {outcome}", recovery)


def _stop_third_stream(system: LiveSystem, *, graceful: bool = True) -> str:
    if not graceful:
        system.kill(THIRD_STREAM)
        return "by kill -9"
    process = system.running[THIRD_STREAM]
    process.send_signal(signal.SIGTERM)
    if not system.wait_until(lambda: process.poll() is not None, _EXIT_TIMEOUT, may_end=(THIRD_STREAM,)):
        raise AssertionError(f"the third process did not end in {_EXIT_TIMEOUT:.0f} s after SIGTERM")
    # Until it has loaded its code, the signal ends it as it ends any program; there is nothing yet to finish.
    loading = process.returncode == -signal.SIGTERM and not system.live.stderr_of(process)
    system.live.wait_for_end(process, -signal.SIGTERM if loading else 0)
    system.remove_if_ended(THIRD_STREAM)
    return "on SIGTERM"


def _disk_full(system: LiveSystem) -> Injected:
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
    if not system.wait_until(lambda: process.poll() is not None, _EXIT_TIMEOUT, may_end=(name,)):
        raise AssertionError(f"{name} went on for {_EXIT_TIMEOUT:.0f} s on a full disk")
    stderr = system.live.stderr_of(process)
    system.remove_if_ended(name)
    last = (stderr.strip().splitlines() or [""])[-1]
    if process.returncode != 1 or expected_message not in last or "Traceback" in stderr:
        raise AssertionError(
            f"on a full disk {name} ended with exit code {process.returncode} and no clear message:\n{stderr[-3000:]}"
        )
    if volume is not None:
        volume.release()
    description = "its state's disk is full" if volume is not None else "its files may not grow"
    return Injected(
        f"stream process {name}: {description}, it reports that and ends{_restart(system, name)} with space", recovery
    )


def _truncated_snapshot(system: LiveSystem) -> Injected:
    folder = _wait_for_snapshots(system)
    name = system.rng.choice(STREAMS)
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    description = snapshots.truncate_newest(folder, system.rng)
    shutil.rmtree(system.state_dir(name))
    restarted = _restart(system, name)
    # If it restarts slowly, the others take over with their own state, and store newer snapshots meanwhile.
    noticed = system.wait_until(lambda: system.any_logged("is corrupt"), _FAILOVER_TIMEOUT)
    detection = "which is reported" if noticed else "which no process had to read"
    return Injected(
        f"kill -9 of stream process {name}, its state deleted; {description}, {detection}{restarted}", recovery
    )


def _kill_in_restore(system: LiveSystem) -> Injected:
    _wait_for_snapshots(system)
    name = system.rng.choice(STREAMS)
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    shutil.rmtree(system.state_dir(name))
    number = system.rng.randint(1, 2)
    system.schedule_kill(name, "restore", number)
    system.start(name)
    _await_death(system, (name,), "restore")
    return Injected(
        f"{_describe(name)} loses its state, kill -9 at restore, passing {number}{_restart(system, name)}", recovery
    )


def _wait_for_snapshots(system: LiveSystem) -> Path:
    folder = system.snapshots
    assert folder is not None
    if not system.wait_until(
        lambda: snapshots.all_tasks_have_two(folder, 2 * system.live.partitions), _FAILPOINT_TIMEOUT
    ):
        raise AssertionError(f"not every task had two snapshots stored in {_FAILPOINT_TIMEOUT:.0f} s of work")
    return folder


def _describe(name: str) -> str:
    return "the trainer" if name == TRAINER else f"stream process {name}"


DISK_FULL_STREAM: Final = STREAMS[0]
"""The process whose disk runs full."""

INJECTORS: Final[dict[str, Callable[[LiveSystem], Injected]]] = {
    "kill-stream": _kill_stream,
    "kill-stream-at-point": _kill_stream_at_failpoint,
    "kill-in-rebalance": _kill_in_rebalance,
    "kill-trainer": _kill_trainer,
    "kill-in-checkpoint": _kill_in_checkpoint,
    "kill-broker": _kill_broker,
    "zombie": _zombie,
    "lose-state": _lose_state,
    "third-process": _third_process,
    "disk-full": _disk_full,
    "truncated-snapshot": _truncated_snapshot,
    "kill-in-snapshot": _kill_in_snapshot,
    "kill-in-restore": _kill_in_restore,
}
"""By kind."""
