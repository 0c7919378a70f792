"""Runs one scenario from beginning to verdict."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kafka.errors import KafkaError

from prectr.state.errors import PrectrError
from testkit.kafka_broker import Broker
from tests.faults.fault_injection import DISK, HARM
from tests.faults.output_probe import Recovery
from tests.faults.plan import OF_VOLUMES, Scenario
from tests.faults.system import STREAMS, TRAINER, System
from tests.faults.verdict import judge
from tests.faults.worlds import Worlds
from tests.kafka.live import Live

_PATIENCE = 120.0
"""Seconds that a process may take to end."""
_FIRST_BURST = 0.15
_LAST_BURST = 0.15
"""Shares of the log that are sent at once at the beginning and at the end."""


@dataclass
class Row:
    """One fault of the table. at: seconds since the scenario began. again: until output flowed; None: unknown."""

    kind: str
    what: str = "not done"
    at: float | None = None
    again: float | None = None


@dataclass
class Outcome:
    """How a scenario went. wrong: empty where all was well. logs: what its processes said, kept where it failed."""

    scenario: Scenario
    rows: list[Row]
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    logs: str | None = None


def run(
    scenario: Scenario, broker: Broker, worlds: Worlds, folder: Path, shown: Callable[[str], None] = lambda text: None
) -> Outcome:
    """Run a scenario on a broker, in a folder that is gone afterwards unless it fails."""
    begun = time.monotonic()
    if not broker.running:
        # A scenario before this one has failed between its crash and its return.
        broker.start()
    log, expected = worlds.log(scenario.world), worlds.expected(scenario.world, scenario.partitions)
    folder.mkdir(parents=True)
    live = Live(
        broker.address,
        f"faults-{scenario.seed}-{scenario.number}-{time.time_ns()}.",
        folder,
        partitions=scenario.partitions,
        patience=_PATIENCE,
    )
    outcome = Outcome(scenario, [Row(fault.kind) for fault in scenario.faults])
    try:
        _broken(scenario, outcome, System(broker, live, log, scenario.rng, snapshots=scenario.snapshots), shown)
        shown("verdict")
        outcome.wrong = judge(live, expected)
    except (AssertionError, PrectrError, KafkaError, OSError, RuntimeError) as error:
        outcome.wrong = [f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)]
    except subprocess.TimeoutExpired as error:
        outcome.wrong = [f"hangs: {_words(error)} did not end in {error.timeout:.0f} s; where it was is in its log"]
    finally:
        live.kill_all()
        live.forget()
    outcome.seconds = time.monotonic() - begun
    if outcome.wrong:
        outcome.logs = str(folder)
    else:
        shutil.rmtree(folder)
    return outcome


def _broken(scenario: Scenario, outcome: Outcome, system: System, shown: Callable[[str], None]) -> None:
    try:
        if OF_VOLUMES & {fault.kind for fault in scenario.faults}:
            system.add_volume(DISK)
        begins = system.again(STREAMS[0])
        system.feed.burst(_FIRST_BURST)
        for name in (*STREAMS, TRAINER):
            system.start(name)
        system.recovered(begins)
        pending: list[tuple[Row, Recovery]] = []
        for row, fault in zip(outcome.rows, scenario.faults, strict=True):
            if not fault.overlaps:
                _settle(system, pending)
            shown(fault.kind)
            system.feed.allow((1 - _FIRST_BURST - _LAST_BURST) / len(outcome.rows))
            row.at = time.monotonic() - system.begun
            row.what = "begun"
            done = HARM[fault.kind](system)
            row.what = f"{done.what}{' (before output flowed again)' if fault.overlaps else ''}"
            pending.append((row, done.recovery))
        _settle(system, pending)
        system.finish(shown)
    except subprocess.TimeoutExpired:
        _write_stacks(system.live)
        raise
    finally:
        system.close()


def _settle(system: System, pending: list[tuple[Row, Recovery]]) -> None:
    """Wait until output flows again after each of the faults."""
    for row, recovery in pending:
        system.recovered(recovery)
        row.again = recovery.seconds
    pending.clear()


def _write_stacks(live: Live) -> None:
    """Have the processes that do not end write down where they are."""
    for process in live.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGUSR1)
    time.sleep(1)


def _words(error: subprocess.TimeoutExpired) -> str:
    return " ".join(str(word) for word in error.cmd)
