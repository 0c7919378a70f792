"""The table of all faults: what was done, how long until output flowed again, and the verdict."""

import statistics
import time
from collections.abc import Sequence

from rich.table import Table

from testkit.provenance import machine, versions
from tests.faults.plan import KINDS
from tests.faults.scenario import FaultRow, ScenarioResult

_METHOD = (
    "Each scenario is a live system of its own on a real broker: two stream processes (session timeout 3 s) and a "
    "trainer, at work on a log that comes in bit by bit while the faults happen, one after the other. What crashes is "
    "started again by the same command. At the end all are stopped, the rest of the log is loaded, and all run to the "
    "end of it (`--until-end --flush`). Equal: examples line by line (each page once), the digests of examples, "
    "aggregates and weights, and the outcomes of all events are those of the embedded replay of the same log, every "
    "refused event is a dead letter once, nothing came out of order, and no process is left. After a fault that ends "
    "the log, what was put out is held against the replay of what was sent, and a new system goes through the whole "
    "log. Said: until a metric, the logs and `prectr doctor` had told of the fault, as far as an operator has "
    "something to do (tests/faults/reports/expected_reports.py). Output again: until every "
    "partition of training-examples has had committed examples since the fault (of the trainer: until its next "
    "checkpoint); where a process is stopped or missing on purpose, that time is part of it."
)
_COLUMNS = ("#", "scenario", "fault", "what was done", "at", "said after", "output again after", "verdict")


def console_table(outcomes: Sequence[ScenarioResult]) -> Table:
    """The table for a terminal."""
    table = Table(title="Faults", show_lines=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for cells in _cells(outcomes):
        table.add_row(*cells, style=None if cells[-1] == "equal" else "bold red")
    return table


def summary(outcomes: Sequence[ScenarioResult]) -> str:
    """How many faults of how many came out as if nothing had happened."""
    fault_count = sum(len(outcome.rows) for outcome in outcomes)
    equal_faults = sum(len(outcome.rows) for outcome in outcomes if not outcome.problems)
    equal_scenarios = sum(not outcome.problems for outcome in outcomes)
    scenarios = f"{equal_scenarios} of {len(outcomes)} scenarios"
    return f"{equal_faults} of {fault_count} faults in {scenarios} came out equal to the replay"


def markdown(outcomes: Sequence[ScenarioResult], command: str, seed: int, already_passed: int = 0) -> str:
    """The table as a page. already_passed: scenarios that came out equal in an earlier run, and were not run again."""
    earlier = (
        f" {already_passed} scenarios came out equal in an earlier run of the same plan, and were not run again."
        if already_passed
        else ""
    )
    lines = [
        "# Faults",
        "",
        f"`{command}`, seed {seed}, {time.strftime('%Y-%m-%d')}, {machine()}; "
        f"{versions('kafka-python', 'rocksdict', 'torch', 'prectr-streaming')}, Apache Kafka 4.",
        "",
        f"{summary(outcomes)}, in {sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes.{earlier}",
        "",
        _METHOD,
        "",
        "| kind | what it is | faults | equal | said after, median | most | output again after, median | most |",
        "|---" * 8 + "|",
    ]
    for kind, meaning in KINDS.items():
        rows = [(row, outcome) for outcome in outcomes for row in outcome.rows if row.kind == kind]
        if rows:
            good = sum(not outcome.problems for _, outcome in rows)
            said = _median_and_most([row.said_after for row, _ in rows])
            recovered = _median_and_most([row.recovered_after for row, _ in rows])
            lines.append(f"| {kind} | {meaning} | {len(rows)} | {good} | {said} | {recovered} |")
    lines += ["", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(outcomes)]
    problems = [
        f"- {outcome.scenario.name}: {' '.join(text.split())}" for outcome in outcomes for text in outcome.problems
    ]
    if problems:
        lines += ["", "## What went wrong", "", *problems]
    return "\n".join(lines) + "\n"


def _cells(outcomes: Sequence[ScenarioResult]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for outcome in outcomes:
        for row in outcome.rows:
            cells.append((str(len(cells) + 1), *_row(outcome, row)))
    return cells


def _row(outcome: ScenarioResult, row: FaultRow) -> tuple[str, ...]:
    scenario = outcome.scenario
    kept = ", snapshots" if scenario.snapshots else ""
    where = f"{scenario.number}: {scenario.world}, {scenario.partitions} partitions{kept}"
    return (
        where,
        row.kind,
        row.description,
        _seconds(row.injected_at),
        _seconds(row.said_after),
        _seconds(row.recovered_after),
        "not equal" if outcome.problems else "equal",
    )


def _median_and_most(values: Sequence[float | None]) -> str:
    """Two cells of the table."""
    known = [value for value in values if value is not None]
    return f"{_seconds(statistics.median(known))} | {_seconds(max(known))}" if known else " | "


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
