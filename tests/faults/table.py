"""The table of all faults: what was done, how long until output flowed again, and the verdict."""

import statistics
import time
from collections.abc import Sequence

from rich.table import Table

from bench.provenance import machine, versions
from tests.faults.plan import KINDS
from tests.faults.scenario import Outcome, Row

_ABOUT = (
    "Each scenario is a live system of its own on a real broker: two stream processes (session timeout 3 s) and a "
    "trainer, at work on a log that comes in bit by bit while the faults happen, one after the other. What crashes is "
    "started again by the same command. At the end all are stopped, the rest of the log is loaded, and all run to the "
    "end of it (`--until-end --flush`). Equal: examples line by line (each page once), the digests of examples, "
    "aggregates and weights, and the outcomes of all events are those of the embedded replay of the same log, every "
    "refused event is a dead letter once, nothing came out of order, and no process is left. Output again: until every "
    "partition of training-examples has had committed examples since the fault (of the trainer: until its next "
    "checkpoint); where a process is stopped or missing on purpose, that time is part of it."
)
_COLUMNS = ("#", "scenario", "fault", "what was done", "at", "output again after", "verdict")


def console_table(outcomes: Sequence[Outcome]) -> Table:
    """The table for a terminal."""
    table = Table(title="Faults", show_lines=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for cells in _cells(outcomes):
        table.add_row(*cells, style=None if cells[-1] == "equal" else "bold red")
    return table


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many faults of how many came out as if nothing had happened."""
    whole = sum(len(outcome.rows) for outcome in outcomes)
    good = sum(len(outcome.rows) for outcome in outcomes if not outcome.wrong)
    right = sum(not outcome.wrong for outcome in outcomes)
    return f"{good} of {whole} faults in {right} of {len(outcomes)} scenarios came out equal to the replay"


def markdown(outcomes: Sequence[Outcome], command: str, seed: int, kept: int = 0) -> str:
    """The table as a page. kept: scenarios that came out equal in an earlier run, and were not run again."""
    again = (
        f" {kept} scenarios came out equal in an earlier run of the same plan, and were not run again." if kept else ""
    )
    lines = [
        "# Faults",
        "",
        f"`{command}`, seed {seed}, {time.strftime('%Y-%m-%d')}, {machine()}; "
        f"{versions('kafka-python', 'rocksdict', 'torch', 'prectr-streaming')}, Apache Kafka 4.",
        "",
        f"{summary(outcomes)}, in {sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes.{again}",
        "",
        _ABOUT,
        "",
        "| kind | what it is | faults | equal | output again after, median | most |",
        "|---|---|---|---|---|---|",
    ]
    for kind, meaning in KINDS.items():
        rows = [(row, outcome) for outcome in outcomes for row in outcome.rows if row.kind == kind]
        if rows:
            again = [row.again for row, _ in rows if row.again is not None]
            good = sum(not outcome.wrong for _, outcome in rows)
            middle, most = (_seconds(statistics.median(again)), _seconds(max(again))) if again else ("", "")
            lines.append(f"| {kind} | {meaning} | {len(rows)} | {good} | {middle} | {most} |")
    lines += ["", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(outcomes)]
    wrong = [f"- {outcome.scenario.name}: {' '.join(text.split())}" for outcome in outcomes for text in outcome.wrong]
    if wrong:
        lines += ["", "## What went wrong", "", *wrong]
    return "\n".join(lines) + "\n"


def _cells(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for outcome in outcomes:
        for row in outcome.rows:
            cells.append((str(len(cells) + 1), *_row(outcome, row)))
    return cells


def _row(outcome: Outcome, row: Row) -> tuple[str, ...]:
    scenario = outcome.scenario
    kept = ", snapshots" if scenario.snapshots else ""
    where = f"{scenario.number}: {scenario.world}, {scenario.partitions} partitions{kept}"
    return (
        where,
        row.kind,
        row.what,
        _seconds(row.at),
        _seconds(row.again),
        "not equal" if outcome.wrong else "equal",
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
