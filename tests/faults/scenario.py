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
from tests.faults.fault_injection import DISK_FULL_STREAM, INJECTORS
from tests.faults.output_probe import RecoveryTimer
from tests.faults.plan import DISK_KINDS, Scenario
from tests.faults.system import STREAMS, TRAINER, LiveSystem
from tests.faults.verdict import find_differences
from tests.faults.worlds import LogCache
from tests.kafka.live import Live

_PROCESS_TIMEOUT = 120.0
"""Seconds that a process may take to end."""
_FIRST_BURST = 0.15
_LAST_BURST = 0.15
"""Shares of the log that are sent at once at the beginning and at the end."""


@dataclass
class FaultRow:
    """One fault of the table, with seconds from the start of the scenario and until output resumed; None: unknown."""

    kind: str
    description: str = "not done"
    injected_at: float | None = None
    recovered_after: float | None = None


@dataclass
class ScenarioResult:
    """Outcome of a scenario: no problems if it passed; the logs of its processes are kept if it failed."""

    scenario: Scenario
    rows: list[FaultRow]
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    logs: str | None = None


def run_scenario(
    scenario: Scenario,
    broker: Broker,
    worlds: LogCache,
    folder: Path,
    on_progress: Callable[[str], None] = lambda text: None,
) -> ScenarioResult:
    """Run a scenario on a broker, in a folder that is gone afterwards unless it fails."""
    started_at = time.monotonic()
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
        timeout=_PROCESS_TIMEOUT,
    )
    outcome = ScenarioResult(scenario, [FaultRow(fault.kind) for fault in scenario.faults])
    try:
        _inject_faults(
            scenario, outcome, LiveSystem(broker, live, log, scenario.rng, snapshots=scenario.snapshots), on_progress
        )
        on_progress("verdict")
        outcome.problems = find_differences(live, expected)
    except (AssertionError, PrectrError, KafkaError, OSError, RuntimeError) as error:
        outcome.problems = [f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)]
    except subprocess.TimeoutExpired as error:
        outcome.problems = [
            f"hangs: {_command_text(error)} did not end in {error.timeout:.0f} s; where it was is in its log"
        ]
    finally:
        live.kill_all()
        live.delete_topics()
    outcome.seconds = time.monotonic() - started_at
    if outcome.problems:
        outcome.logs = str(folder)
    else:
        shutil.rmtree(folder)
    return outcome


def _inject_faults(
    scenario: Scenario, outcome: ScenarioResult, system: LiveSystem, on_progress: Callable[[str], None]
) -> None:
    try:
        if DISK_KINDS & {fault.kind for fault in scenario.faults}:
            system.add_volume(DISK_FULL_STREAM)
        first_output = system.start_recovery_timer(STREAMS[0])
        system.feed.burst(_FIRST_BURST)
        for name in (*STREAMS, TRAINER):
            system.start(name)
        system.wait_for_recovery(first_output)
        pending: list[tuple[FaultRow, RecoveryTimer]] = []
        for row, fault in zip(outcome.rows, scenario.faults, strict=True):
            if not fault.overlaps:
                _await_recovery(system, pending)
            on_progress(fault.kind)
            system.feed.allow((1 - _FIRST_BURST - _LAST_BURST) / len(outcome.rows))
            row.injected_at = time.monotonic() - system.started_at
            row.description = "begun"
            done = INJECTORS[fault.kind](system)
            row.description = f"{done.description}{' (before output flowed again)' if fault.overlaps else ''}"
            pending.append((row, done.recovery))
        _await_recovery(system, pending)
        system.finish(on_progress)
    except subprocess.TimeoutExpired:
        _dump_stacks(system.live)
        raise
    finally:
        system.close()


def _await_recovery(system: LiveSystem, pending: list[tuple[FaultRow, RecoveryTimer]]) -> None:
    """Wait until output flows again after each of the faults."""
    for row, recovery in pending:
        system.wait_for_recovery(recovery)
        row.recovered_after = recovery.seconds
    pending.clear()


def _dump_stacks(live: Live) -> None:
    """Have the processes that do not end write down where they are."""
    for process in live.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGUSR1)
    time.sleep(1)


def _command_text(error: subprocess.TimeoutExpired) -> str:
    return " ".join(str(word) for word in error.cmd)
