"""`python -m tests.faults`: the fault matrix on a real broker, and its table."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from testkit.kafka_broker import INSTALL_HINT, Broker, kafka_home
from testkit.provenance import ROOT, command_line
from tests.faults import snapshots
from tests.faults.plan import KINDS, Scenario, make_plan
from tests.faults.scenario import ScenarioResult, run_scenario
from tests.faults.table import console_table, markdown, summary
from tests.faults.worlds import LogCache

RESULTS = ROOT / "bench" / "results" / "faults.md"
_ROWS_INTERVAL = 5.0
"""Seconds between two looks at what the processes of a parallel run have written."""
_console = Console(width=None if sys.stdout.isatty() else 160)


def main(
    faults: Annotated[int, typer.Option(min=1, help="How many faults.")] = 260,
    seed: Annotated[int, typer.Option(help="Decides all that is drawn: kinds, moments, places.")] = 1,
    kinds: Annotated[str, typer.Option(help=f"Only these, with commas: {', '.join(KINDS)}.")] = "",
    only: Annotated[str, typer.Option(help="Only the scenarios of these numbers, with commas.")] = "",
    write: Annotated[bool, typer.Option("--write", help="Write the table to bench/results/faults.md.")] = False,
    rows: Annotated[
        Path | None,
        typer.Option(help="Write the rows to this file; scenarios that came out equal there are not run again."),
    ] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on after a scenario that fails.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Scenarios at a time, each with a broker of its own.")] = 1,
) -> None:
    """Break a live system in every way, and hold what comes out against the embedded replay of the same log.

    Example: python -m tests.faults --faults 20 --seed 3 --kinds zombie,kill-broker
    """
    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()] or list(KINDS)
    unknown = sorted(set(wanted) - set(KINDS))
    if unknown:
        raise typer.BadParameter(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}", param_hint="--kinds")
    home = kafka_home()
    if home is None:
        _console.print(f"no Kafka to test with: {INSTALL_HINT}")
        raise typer.Exit(1)
    scenarios = make_plan(seed, faults, wanted, snapshots=snapshots.AVAILABLE)
    chosen = {int(text) for text in only.split(",") if text.strip()}
    scenarios = [scenario for scenario in scenarios if not chosen or scenario.number in chosen]
    base_flags = f"--faults {faults} --seed {seed}" + (f" --kinds {kinds}" if kinds else "")
    outcomes_by_number = _passed_before(rows, scenarios)

    def on_outcomes(outcomes: list[ScenarioResult]) -> None:
        outcomes_by_number.update({outcome.scenario.number: outcome for outcome in outcomes})
        if rows is not None:
            written = [outcomes_by_number[number] for number in sorted(outcomes_by_number)]
            rows.write_bytes(msgspec.json.format(msgspec.json.encode(written)) + b"\n")

    already_passed = len(outcomes_by_number)
    missing = [scenario for scenario in scenarios if scenario.number not in outcomes_by_number]
    if jobs > 1:
        _run_in_parallel(missing, jobs, base_flags, on_outcomes, keep_going=keep_going)
    else:
        _run_all(missing, home, base_flags, on_outcomes, keep_going=keep_going)
    outcomes = [outcomes_by_number[number] for number in sorted(outcomes_by_number)]
    _console.print(console_table(outcomes))
    _console.print(summary(outcomes))
    page = markdown(outcomes, command_line("tests.faults", sys.argv[1:]), seed, already_passed)
    if write:
        RESULTS.write_text(page)
    if any(outcome.problems for outcome in outcomes) or len(outcomes) < len(scenarios):
        raise typer.Exit(1)


def _passed_before(path: Path | None, scenarios: list[Scenario]) -> dict[int, ScenarioResult]:
    """What came out equal before, by the scenario's number; of another plan, nothing is taken."""
    if path is None or not path.exists():
        return {}
    rows = msgspec.json.decode(path.read_bytes(), type=list[ScenarioResult])
    return {row.scenario.number: row for row in rows if not row.problems and row.scenario in scenarios}


def _run_in_parallel(
    scenarios: list[Scenario],
    jobs: int,
    base_flags: str,
    on_outcomes: Callable[[list[ScenarioResult]], None],
    *,
    keep_going: bool,
) -> None:
    """Run the scenarios in so many processes of this program; `on_outcomes` receives what each has written."""
    shares: list[list[Scenario]] = [[] for _ in range(min(jobs, len(scenarios)))]
    for scenario in sorted(scenarios, key=lambda each: -len(each.faults)):
        min(shares, key=lambda share: sum(len(each.faults) for each in share)).append(scenario)
    with tempfile.TemporaryDirectory(prefix="prectr-faults-rows-") as folder:
        running = []
        for number, share in enumerate(shares):
            rows = Path(folder) / f"{number}.json"
            only = ",".join(str(scenario.number) for scenario in share)
            flags = [
                *base_flags.split(),
                "--only",
                only,
                "--rows",
                str(rows),
                *(["--keep-going"] if keep_going else []),
            ]
            running.append((rows, subprocess.Popen([sys.executable, "-m", "tests.faults", *flags])))
        try:
            while any(process.poll() is None for _, process in running):
                time.sleep(_ROWS_INTERVAL)
                _collect([rows for rows, _ in running], on_outcomes)
        finally:
            for _, process in running:
                process.terminate()
                process.wait()
        _collect([rows for rows, _ in running], on_outcomes)


def _collect(paths: list[Path], on_outcomes: Callable[[list[ScenarioResult]], None]) -> None:
    for path in paths:
        # A file that is being written is read the next time.
        with suppress(FileNotFoundError, msgspec.DecodeError):
            on_outcomes(msgspec.json.decode(path.read_bytes(), type=list[ScenarioResult]))


def _run_all(
    scenarios: list[Scenario],
    home: Path,
    base_flags: str,
    on_outcomes: Callable[[list[ScenarioResult]], None],
    *,
    keep_going: bool,
) -> None:
    """Run the scenarios one after the other; `on_outcomes` receives all outcomes so far after each."""
    folder = Path(tempfile.mkdtemp(prefix="prectr-faults-"))
    broker = Broker(home, folder / "kafka")
    worlds = LogCache(folder / "worlds")
    outcomes: list[ScenarioResult] = []
    try:
        broker.start()
        for scenario in scenarios:
            scenario_dir = folder / f"scenario-{scenario.number}"
            outcome = run_scenario(
                scenario, broker, worlds, scenario_dir, lambda text: _print_timestamped(f"   {text}")
            )
            outcomes.append(outcome)
            on_outcomes(outcomes)
            verdict = "not equal" if outcome.problems else "equal"
            _print_timestamped(f"{scenario.name}: {verdict}, {len(outcome.rows)} faults in {outcome.seconds:.0f} s")
            if outcome.problems:
                for text in outcome.problems:
                    _print_timestamped(f"   {text}")
                _print_timestamped(
                    f"   logs: {outcome.logs}; again: python -m tests.faults {base_flags} --only {scenario.number}"
                )
                if not keep_going:
                    break
    finally:
        broker.stop()
        for entry in ("kafka", "worlds"):
            shutil.rmtree(folder / entry, ignore_errors=True)
        if not any(outcome.problems for outcome in outcomes):
            shutil.rmtree(folder, ignore_errors=True)


def _print_timestamped(text: str) -> None:
    _console.print(f"{time.strftime('%X')} {text}", highlight=False, markup=False, soft_wrap=True)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # The client library logs every failed attempt, and here the broker fails on purpose.
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    # Every process would compile torch again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    typer.run(main)
