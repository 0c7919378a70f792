"""`python -m tests.faults`: the fault matrix on a real broker, and its table."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench.provenance import ROOT, command_line
from testkit.kafka_broker import HOW, Broker, kafka_home
from tests.faults import snapshots
from tests.faults.plan import KINDS, Scenario, plan
from tests.faults.scenario import Outcome, run
from tests.faults.table import console_table, markdown, summary
from tests.faults.worlds import Worlds

RESULTS = ROOT / "bench" / "results" / "faults.md"
_console = Console(width=None if sys.stdout.isatty() else 160)


def main(
    faults: Annotated[int, typer.Option(min=1, help="How many faults.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides all that is drawn: kinds, moments, places.")] = 1,
    kinds: Annotated[str, typer.Option(help=f"Only these, with commas: {', '.join(KINDS)}.")] = "",
    only: Annotated[str, typer.Option(help="Only the scenarios of these numbers, with commas.")] = "",
    write: Annotated[bool, typer.Option("--write", help="Write the table to bench/results/faults.md.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    after: Annotated[
        Path | None,
        typer.Option(help="Rows that --json has written: scenarios that came out equal there are not run again."),
    ] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on after a scenario that fails.")] = False,
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
        _console.print(f"no Kafka to test with: {HOW}")
        raise typer.Exit(1)
    scenarios = plan(seed, faults, wanted, snapshots=snapshots.AVAILABLE)
    chosen = {int(text) for text in only.split(",") if text.strip()}
    scenarios = [scenario for scenario in scenarios if not chosen or scenario.number in chosen]
    given = f"--faults {faults} --seed {seed}" + (f" --kinds {kinds}" if kinds else "")
    known = _known(after, scenarios)

    def found(outcomes: list[Outcome]) -> None:
        known.update({outcome.scenario.number: outcome for outcome in outcomes})
        if json is not None:
            rows = [known[number] for number in sorted(known)]
            json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")

    kept = len(known)
    missing = [scenario for scenario in scenarios if scenario.number not in known]
    _run_all(missing, home, given, found, keep_going=keep_going)
    outcomes = [known[number] for number in sorted(known)]
    _console.print(console_table(outcomes))
    _console.print(summary(outcomes))
    page = markdown(outcomes, command_line("tests.faults", sys.argv[1:]), seed, kept)
    if write:
        RESULTS.write_text(page)
    if any(outcome.wrong for outcome in outcomes) or len(outcomes) < len(scenarios):
        raise typer.Exit(1)


def _known(after: Path | None, scenarios: list[Scenario]) -> dict[int, Outcome]:
    """What came out equal before, by the scenario's number; of another plan, nothing is taken."""
    if after is None:
        return {}
    rows = msgspec.json.decode(after.read_bytes(), type=list[Outcome])
    return {row.scenario.number: row for row in rows if not row.wrong and row.scenario in scenarios}


def _run_all(
    scenarios: list[Scenario],
    home: Path,
    given: str,
    found: Callable[[list[Outcome]], None],
    *,
    keep_going: bool,
) -> None:
    """Run them one after the other; `found` hears what has been found so far after each."""
    folder = Path(tempfile.mkdtemp(prefix="prectr-faults-"))
    broker = Broker(home, folder / "kafka")
    worlds = Worlds(folder / "worlds")
    outcomes: list[Outcome] = []
    try:
        broker.start()
        for scenario in scenarios:
            place = folder / f"scenario-{scenario.number}"
            outcome = run(scenario, broker, worlds, place, lambda text: _say(f"   {text}"))
            outcomes.append(outcome)
            found(outcomes)
            verdict = "not equal" if outcome.wrong else "equal"
            _say(f"{scenario.name}: {verdict}, {len(outcome.rows)} faults in {outcome.seconds:.0f} s")
            if outcome.wrong:
                for text in outcome.wrong:
                    _say(f"   {text}")
                _say(f"   logs: {outcome.logs}; again: python -m tests.faults {given} --only {scenario.number}")
                if not keep_going:
                    break
    finally:
        broker.stop()
        for entry in ("kafka", "worlds"):
            shutil.rmtree(folder / entry, ignore_errors=True)
        if not any(outcome.wrong for outcome in outcomes):
            shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    _console.print(f"{time.strftime('%X')} {text}", highlight=False, markup=False, soft_wrap=True)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # The client library logs every failed attempt, and here the broker fails on purpose.
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    # Each process started would compile torch anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, _interrupted)
    typer.run(main)
