"""Faults of processes: killed at any moment or at a named point, frozen, joined by a third one."""

import signal
import time
from typing import Final

from tests.faults.injection.restart import EXIT_TIMEOUT, Injected, describe_process, look_at_metrics, restart
from tests.faults.plan import STREAM_FAILPOINTS
from tests.faults.system import SESSION_SECONDS, STREAMS, THIRD_STREAM, TRAINER, LiveSystem

FAILPOINT_TIMEOUT: Final = 90.0
_REBALANCE_TIMEOUT: Final = 15.0
"""Seconds in which a process at work passes any point."""
_FAILOVER_TIMEOUT: Final = 20.0


def kill_stream(system: LiveSystem) -> Injected:
    name = system.rng.choice(system.victims(*STREAMS))
    return _kill_and_restart(system, name, f"stream process {name}")


def kill_trainer(system: LiveSystem) -> Injected:
    return _kill_and_restart(system, TRAINER, "the trainer")


def _kill_and_restart(system: LiveSystem, name: str, description: str) -> Injected:
    system.run_for(system.rng.uniform(0, 2))
    look_at_metrics(system, name)
    recovery = system.start_recovery_timer(name)
    system.kill(name)
    return Injected(f"kill -9 of {description}{restart(system, name)}", recovery)


def kill_stream_at_failpoint(system: LiveSystem) -> Injected:
    name, failpoint = system.rng.choice(system.victims(*STREAMS)), system.rng.choice(STREAM_FAILPOINTS)
    return kill_at_failpoint(system, (name,), failpoint, system.rng.randint(1, 12))


def kill_in_checkpoint(system: LiveSystem) -> Injected:
    return kill_at_failpoint(system, (TRAINER,), "checkpoint", system.rng.randint(1, 2))


def kill_at_failpoint(system: LiveSystem, names: tuple[str, ...], failpoint: str, hit: int) -> Injected:
    """Whichever passes the point first is killed there."""
    for name in names:
        system.schedule_kill(name, failpoint, hit)
    dead = await_death(system, names, failpoint)
    recovery = system.start_recovery_timer(dead)
    restarted = restart(system, dead)
    return Injected(f"kill -9 of {describe_process(dead)} at {failpoint}, passing {hit}{restarted}", recovery)


def await_death(system: LiveSystem, names: tuple[str, ...], failpoint: str) -> str:
    dead = _first_killed(system, names, failpoint, FAILPOINT_TIMEOUT)
    if dead is None:
        raise AssertionError(
            f"{' and '.join(names)} did not pass the point {failpoint} in {FAILPOINT_TIMEOUT:.0f} s of work"
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
            system.running[name].wait(EXIT_TIMEOUT)
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


def kill_in_rebalance(system: LiveSystem) -> Injected:
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
            stop_third_stream(system)
            system.start(THIRD_STREAM)
        for name in in_time:
            system.schedule_kill(name, "rebalance", 1)
        dead = await_death(system, STREAMS, "rebalance")
    recovery = system.start_recovery_timer(dead)
    restarted = restart(system, dead)
    system.wait_for_recovery(recovery)
    stop_third_stream(system)
    return Injected(f"a third process joins, kill -9 of {describe_process(dead)} in the rebalance{restarted}", recovery)


def zombie(system: LiveSystem) -> Injected:
    """It wakes as others take over its tasks, or when they have done so and put out again."""
    name = system.rng.choice(system.victims(*STREAMS))
    seconds = SESSION_SECONDS + system.rng.uniform(1.5, 4)
    late = system.rng.random() < 0.5
    system.run_for(system.rng.uniform(0, 2))
    look_at_metrics(system, name)
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


def third_process(system: LiveSystem) -> Injected:
    system.start(THIRD_STREAM)
    stay_seconds = system.rng.uniform(2, 6)
    system.run_for(stay_seconds)
    recovery = system.start_recovery_timer(THIRD_STREAM)
    outcome = stop_third_stream(system, graceful=system.rng.random() < 0.5)
    return Injected(f"a third process joins, and leaves after {stay_seconds:.1f} s {outcome}", recovery)


def stop_third_stream(system: LiveSystem, *, graceful: bool = True) -> str:
    if not graceful:
        system.kill(THIRD_STREAM)
        return "by kill -9"
    process = system.running[THIRD_STREAM]
    process.send_signal(signal.SIGTERM)
    if not system.wait_until(lambda: process.poll() is not None, EXIT_TIMEOUT, may_end=(THIRD_STREAM,)):
        raise AssertionError(f"the third process did not end in {EXIT_TIMEOUT:.0f} s after SIGTERM")
    # Until it has loaded its code, the signal ends it as it ends any program; there is nothing yet to finish.
    loading = process.returncode == -signal.SIGTERM and not system.live.stderr_of(process)
    system.live.wait_for_end(process, -signal.SIGTERM if loading else 0)
    system.remove_if_ended(THIRD_STREAM)
    return "on SIGTERM"
