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
from tests.faults.output_probe import Recovery
from tests.faults.plan import STREAM_POINTS
from tests.faults.system import SESSION_SECONDS, STREAMS, TRAINER, System

THIRD: Final = "3"
_POINT_LIMIT: Final = 90.0
_REBALANCE_LIMIT: Final = 15.0
"""Seconds in which a process at work passes any point."""
_EXIT_LIMIT: Final = 90.0
_TAKEOVER_LIMIT: Final = 20.0
_RESTART_AFTER: Final = 1.5
"""At most so many seconds after a crash, the operator starts the process again."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, in words, and what is waited for since the moment of harm."""

    what: str
    recovery: Recovery


def _kill_stream(system: System) -> Done:
    name = system.rng.choice(STREAMS)
    return _killed(system, name, f"stream process {name}")


def _kill_trainer(system: System) -> Done:
    return _killed(system, TRAINER, "the trainer")


def _killed(system: System, name: str, called: str) -> Done:
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.again(name)
    system.kill(name)
    return Done(f"kill -9 of {called}{_restarted(system, name)}", recovery)


def _restarted(system: System, name: str) -> str:
    seconds = system.rng.choice((0.0, system.rng.uniform(0, _RESTART_AFTER)))
    system.run_for(seconds)
    system.start(name)
    return f", started again after {seconds:.1f} s"


def _kill_stream_at_point(system: System) -> Done:
    name, point = system.rng.choice(STREAMS), system.rng.choice(STREAM_POINTS)
    return _killed_at(system, (name,), point, system.rng.randint(1, 12))


def _kill_in_checkpoint(system: System) -> Done:
    return _killed_at(system, (TRAINER,), "checkpoint", system.rng.randint(1, 2))


def _kill_in_snapshot(system: System) -> Done:
    return _killed_at(system, (system.rng.choice(STREAMS),), "snapshot", system.rng.randint(1, 3))


def _killed_at(system: System, names: tuple[str, ...], point: str, number: int) -> Done:
    """Whichever passes the point first is killed there."""
    for name in names:
        system.arm(name, point, number)
    dead = _await_death(system, names, point)
    recovery = system.again(dead)
    return Done(f"kill -9 of {_called(dead)} at {point}, passing {number}{_restarted(system, dead)}", recovery)


def _await_death(system: System, names: tuple[str, ...], point: str) -> str:
    dead = _death(system, names, point, _POINT_LIMIT)
    if dead is None:
        raise AssertionError(f"{' and '.join(names)} did not pass the point {point} in {_POINT_LIMIT:.0f} s of work")
    return dead


def _death(system: System, names: tuple[str, ...], point: str, seconds: float) -> str | None:
    """The first of them that was killed at its point; None where none was in so many seconds."""
    dead: list[str] = []

    def died() -> bool:
        dead.extend(name for name in names if system.running[name].poll() is not None)
        return bool(dead)

    if not system.until(died, seconds, may_end=names):
        return None
    for name in names:
        if not system.disarm(name) and name not in dead:
            # Both passed the point at the same moment.
            system.running[name].wait(_EXIT_LIMIT)
            dead.append(name)
    for name in dead:
        code = system.running[name].returncode
        if code != -signal.SIGKILL:
            said = system.live.said(system.running[name])[-3000:]
            raise AssertionError(f"{name} was to be killed at {point}, and ended with exit code {code}:\n{said}")
        system.died(name)
    for other in dead[1:]:
        system.start(other)
    return dead[0]


def _kill_in_rebalance(system: System) -> Done:
    """A third process makes tasks move; it leaves when all is well again.

    Where it comes while others are only coming back, it is given what nobody has yet, and comes once more.
    """
    for name in STREAMS:
        system.arm(name, "rebalance", 1)
    system.start(THIRD)
    dead = _death(system, STREAMS, "rebalance", _REBALANCE_LIMIT)
    if dead is None:
        in_time = [name for name in STREAMS if system.disarm(name)]
        if len(in_time) == len(STREAMS):
            _leave(system)
            system.start(THIRD)
        for name in in_time:
            system.arm(name, "rebalance", 1)
        dead = _await_death(system, STREAMS, "rebalance")
    recovery = system.again(dead)
    restarted = _restarted(system, dead)
    system.recovered(recovery)
    _leave(system)
    return Done(f"a third process joins, kill -9 of {_called(dead)} in the rebalance{restarted}", recovery)


def _kill_broker(system: System) -> Done:
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.again(STREAMS[0])
    system.broker.crash()
    seconds = system.rng.choice((0.0, system.rng.uniform(0, 3)))
    system.run_for(seconds)
    system.broker.start()
    return Done(f"kill -9 of the broker, started again after {seconds:.1f} s", recovery)


def _zombie(system: System) -> Done:
    """It wakes as others take over its tasks, or when they have done so and put out again."""
    name = system.rng.choice(STREAMS)
    seconds = SESSION_SECONDS + system.rng.uniform(1.5, 4)
    late = system.rng.random() < 0.5
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.again(name)
    stopped = time.monotonic()
    system.running[name].send_signal(signal.SIGSTOP)
    system.run_for(seconds)
    if late:
        system.until(lambda: recovery.seconds is not None, _TAKEOVER_LIMIT)
    system.running[name].send_signal(signal.SIGCONT)
    when = "when others put out in its place, " if late and recovery.seconds is not None else ""
    asleep = time.monotonic() - stopped
    return Done(f"SIGSTOP of stream process {name}, {when}after {asleep:.1f} s SIGCONT", recovery)


def _lose_state(system: System) -> Done:
    name = system.rng.choice(STREAMS)
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.again(name)
    system.kill(name)
    shutil.rmtree(system.state(name))
    source = "the log" if system.snapshots is None else "a snapshot or the log"
    restarted = _restarted(system, name)
    return Done(f"kill -9 of stream process {name}, its state deleted (rebuilt from {source}){restarted}", recovery)


def _third_process(system: System) -> Done:
    system.start(THIRD)
    stays = system.rng.uniform(2, 6)
    system.run_for(stays)
    recovery = system.again(THIRD)
    how = _leave(system, kindly=system.rng.random() < 0.5)
    return Done(f"a third process joins, and leaves after {stays:.1f} s {how}", recovery)


def _leave(system: System, *, kindly: bool = True) -> str:
    if not kindly:
        system.kill(THIRD)
        return "by kill -9"
    process = system.running[THIRD]
    process.send_signal(signal.SIGTERM)
    if not system.until(lambda: process.poll() is not None, _EXIT_LIMIT, may_end=(THIRD,)):
        raise AssertionError(f"the third process did not end in {_EXIT_LIMIT:.0f} s after SIGTERM")
    # Until it has loaded its code, the signal ends it as it ends any program; there is nothing yet to finish.
    loading = process.returncode == -signal.SIGTERM and not system.live.said(process)
    system.live.ended(process, -signal.SIGTERM if loading else 0)
    system.died(THIRD)
    return "on SIGTERM"


def _disk_full(system: System) -> Done:
    name = DISK
    volume = system.volume(name)
    process = system.running[name]
    system.run_for(system.rng.uniform(0, 2))
    recovery = system.again(name)
    if volume is not None:
        volume.fill()
        told = "No space left"
    else:
        # Where no small disk can be mounted: no file of the process may grow much more.
        grown = 4096 + max((path.stat().st_size for path in system.state(name).rglob("*.log")), default=0)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (grown, grown))
        told = "could not be written"
    if not system.until(lambda: process.poll() is not None, _EXIT_LIMIT, may_end=(name,)):
        raise AssertionError(f"{name} went on for {_EXIT_LIMIT:.0f} s on a full disk")
    said = system.live.said(process)
    system.died(name)
    last = (said.strip().splitlines() or [""])[-1]
    if process.returncode != 1 or told not in last or "Traceback" in said:
        raise AssertionError(
            f"on a full disk {name} ended with exit code {process.returncode} and no clear word of it:\n{said[-3000:]}"
        )
    if volume is not None:
        volume.free()
    what = "its state's disk is full" if volume is not None else "its files may not grow"
    return Done(f"stream process {name}: {what}, it says so and ends{_restarted(system, name)} with space", recovery)


def _truncated_snapshot(system: System) -> Done:
    folder = _snapshots_stored(system)
    name = system.rng.choice(STREAMS)
    recovery = system.again(name)
    system.kill(name)
    cut = snapshots.truncate(folder, system.rng)
    shutil.rmtree(system.state(name))
    restarted = _restarted(system, name)
    # Where it comes back slowly, the others take over with state of their own, and store newer snapshots meanwhile.
    noticed = system.until(lambda: system.heard("is damaged"), _TAKEOVER_LIMIT)
    seen = "which is said" if noticed else "which nobody had to read"
    return Done(f"kill -9 of stream process {name}, its state deleted; {cut}, {seen}{restarted}", recovery)


def _kill_in_restore(system: System) -> Done:
    _snapshots_stored(system)
    name = system.rng.choice(STREAMS)
    recovery = system.again(name)
    system.kill(name)
    shutil.rmtree(system.state(name))
    number = system.rng.randint(1, 2)
    system.arm(name, "restore", number)
    system.start(name)
    _await_death(system, (name,), "restore")
    return Done(
        f"{_called(name)} loses its state, kill -9 at restore, passing {number}{_restarted(system, name)}", recovery
    )


def _snapshots_stored(system: System) -> Path:
    folder = system.snapshots
    assert folder is not None
    if not system.until(lambda: snapshots.ready(folder, 2 * system.live.partitions), _POINT_LIMIT):
        raise AssertionError(f"not every task had two snapshots stored in {_POINT_LIMIT:.0f} s of work")
    return folder


def _called(name: str) -> str:
    return "the trainer" if name == TRAINER else f"stream process {name}"


DISK: Final = STREAMS[0]
"""The process whose disk runs full."""

HARM: Final[dict[str, Callable[[System], Done]]] = {
    "kill-stream": _kill_stream,
    "kill-stream-at-point": _kill_stream_at_point,
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
