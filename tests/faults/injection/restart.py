"""What the injection of every fault shares: what it returns, and how a process is started again."""

from dataclasses import dataclass
from typing import Final

from tests.faults.output_probe import RecoveryTimer
from tests.faults.reports.watch import SAID_WITHIN, scrape
from tests.faults.system import TRAINER, LiveSystem

EXIT_TIMEOUT: Final = 90.0
_MAX_RESTART_DELAY: Final = 1.5
"""At most so many seconds after a crash, the operator starts the process again."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What was done, in words, and what is waited for since the moment of harm."""

    description: str
    recovery: RecoveryTimer


def restart(system: LiveSystem, name: str) -> str:
    """Start a process again, at once or a little later; returns that in words."""
    system.look()
    seconds = system.rng.choice((0.0, system.rng.uniform(0, _MAX_RESTART_DELAY)))
    system.run_for(seconds)
    system.start(name)
    return f", started again after {seconds:.1f} s"


def look_at_metrics(system: LiveSystem, name: str) -> None:
    """Look once more before a process is harmed: one that has served no metrics yet was down before, too."""
    if scrape(system.ports[name]) is None:
        system.watch.expect_nothing("metric")
    else:
        system.look()


def describe_process(name: str) -> str:
    """Name a process in a sentence."""
    return "the trainer" if name == TRAINER else f"stream process {name}"


def await_reports(system: LiveSystem, *, may_end: tuple[str, ...] = (), **settings: str) -> None:
    """Ask the doctor, and wait until all that must be said has been, before the operator mends anything.

    may_end: processes that the fault ends. settings: environment of the doctor.
    """
    watch = system.watch
    watch.ask_doctor(**settings)
    if not system.wait_until(lambda: not watch.missing, SAID_WITHIN, may_end=may_end):
        raise AssertionError(f"nothing was said of the fault in {SAID_WITHIN:.0f} s in {' and '.join(watch.missing)}")
