"""Runs one scenario from beginning to verdict."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kafka.errors import KafkaError

from prectr.state.errors import PrectrError
from testkit.kafka_broker import Broker
from tests.faults.feed import LogFeeder
from tests.faults.injection.log_endings import LOG_ENDINGS
from tests.faults.injection.registry import INJECTORS
from tests.faults.injection.storage import DISK_FULL_STREAM
from tests.faults.output_probe import RecoveryTimer
from tests.faults.plan import DISK_KINDS, LOG_ENDING_KINDS, Scenario
from tests.faults.reports.expected_reports import EXPECTED_REPORTS
from tests.faults.reports.watch import SAID_WITHIN, ReportWatch, findings_of_healthy_system
from tests.faults.start_over import check_put_out, replay_of_sent, start_over
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
    """One fault of the table; seconds are None where unknown, or there is nothing to say.

    injected_at: seconds from the start of the scenario. recovered_after: until output resumed. said_after: until
    metric, log and doctor had said what was wrong, as far as each has to.
    """

    kind: str
    description: str = "not done"
    injected_at: float | None = None
    recovered_after: float | None = None
    said_after: float | None = None


@dataclass
class _Pending:
    """A fault that is done, and what is waited for."""

    row: FaultRow
    recovery: RecoveryTimer
    watch: ReportWatch


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
    again: Live | None = None
    try:
        feed = partial(LogFeeder, log=log, partitions=scenario.partitions)
        system = LiveSystem(broker, live, scenario.rng, feed, snapshots=scenario.snapshots)
        if LOG_ENDING_KINDS & {fault.kind for fault in scenario.faults}:
            _end_log(outcome, system, on_progress)
            on_progress("starting over")
            again = start_over(live, log)
        else:
            _inject_faults(scenario, outcome, system, on_progress)
        on_progress("verdict")
        outcome.problems += find_differences(live if again is None else again, expected)
    except (AssertionError, PrectrError, KafkaError, OSError, RuntimeError) as error:
        outcome.problems += [
            f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
        ]
    except subprocess.TimeoutExpired as error:
        outcome.problems += [
            f"hangs: {_command_text(error)} did not end in {error.timeout:.0f} s; where it was is in its log"
        ]
    finally:
        for each in filter(None, (live, again)):
            each.kill_all()
            each.delete_topics()
    outcome.seconds = time.monotonic() - started_at
    if outcome.problems:
        outcome.logs = str(folder)
    else:
        shutil.rmtree(folder)
    return outcome


def _begin(outcome: ScenarioResult, system: LiveSystem) -> None:
    """Start the processes, and wait until all is well."""
    first_output = system.start_recovery_timer(STREAMS[0])
    system.feed.burst(_FIRST_BURST)
    for name in (*STREAMS, TRAINER):
        system.start(name)
    system.wait_for_recovery(first_output)
    expected = [EXPECTED_REPORTS[row.kind].finding for row in outcome.rows]
    for report in findings_of_healthy_system(system, [finding for finding in expected if finding is not None]):
        raise AssertionError(f"the doctor finds {report.name!r} although nothing is wrong")


def _inject_faults(
    scenario: Scenario, outcome: ScenarioResult, system: LiveSystem, on_progress: Callable[[str], None]
) -> None:
    try:
        if DISK_KINDS & {fault.kind for fault in scenario.faults}:
            system.add_volume(DISK_FULL_STREAM)
        _begin(outcome, system)
        pending: list[_Pending] = []
        for row, fault in zip(outcome.rows, scenario.faults, strict=True):
            if not fault.overlaps:
                outcome.problems += _await_recovery(system, pending)
            on_progress(fault.kind)
            system.feed.allow((1 - _FIRST_BURST - _LAST_BURST) / len(outcome.rows))
            row.injected_at = time.monotonic() - system.started_at
            row.description = "begun"
            watch = system.start_watch(EXPECTED_REPORTS[fault.kind])
            done = INJECTORS[fault.kind](system)
            row.description = f"{done.description}{' (before output flowed again)' if fault.overlaps else ''}"
            pending.append(_Pending(row, done.recovery, watch))
        outcome.problems += _await_recovery(system, pending)
        system.finish(on_progress)
    except subprocess.TimeoutExpired:
        _dump_stacks(system.live)
        raise
    finally:
        system.close()


def _end_log(outcome: ScenarioResult, system: LiveSystem, on_progress: Callable[[str], None]) -> None:
    """Break the log when all that was sent is processed, so that what was put out can be held against its replay."""
    (row,) = outcome.rows
    try:
        _begin(outcome, system)
        system.feed.pause()
        system.stop_all()
        system.run_to_end()
        expected = replay_of_sent(system)
        outcome.problems += check_put_out(system.live, expected)
        on_progress(row.kind)
        row.injected_at = time.monotonic() - system.started_at
        watch = system.start_watch(EXPECTED_REPORTS[row.kind])
        row.description = LOG_ENDINGS[row.kind](system)
        outcome.problems += _close_watch(system, row, watch)
        if row.kind != "forged-frame":
            # A forged frame cannot be passed: what is before it was read above.
            outcome.problems += check_put_out(system.live, expected)
    except subprocess.TimeoutExpired:
        _dump_stacks(system.live)
        raise
    finally:
        system.close()


def _await_recovery(system: LiveSystem, pending: list[_Pending]) -> list[str]:
    """Wait until output flows again after each of the faults, and it has been said; what was not, in words."""
    problems = []
    for each in pending:
        system.wait_for_recovery(each.recovery)
        each.row.recovered_after = each.recovery.seconds
        problems += _close_watch(system, each.row, each.watch)
    pending.clear()
    return problems


def _close_watch(system: LiveSystem, row: FaultRow, watch: ReportWatch) -> list[str]:
    system.wait_until(lambda: not watch.missing, SAID_WITHIN)
    row.said_after = watch.seconds
    missing = watch.missing
    system.stop_watch(watch)
    return [f"{row.kind}: nothing was said of it in {SAID_WITHIN:.0f} s in {place}" for place in missing]


def _dump_stacks(live: Live) -> None:
    """Have the processes that do not end write down where they are."""
    for process in live.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGUSR1)
    time.sleep(1)


def _command_text(error: subprocess.TimeoutExpired) -> str:
    return " ".join(str(word) for word in error.cmd)
