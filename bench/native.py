"""`python -m bench.native`: a replay by the stages in Python and by the native core; results must be equal."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer

from prectr.state.errors import PrectrError
from prectr.stream.config import PipelineConfig
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.replay.runner import Replay
from prectr.stream.simulator import WorldSettings, simulate
from prectr.stream.sinks.run_digest import RunDigestState
from prectr.stream.stages import described


class Run(msgspec.Struct):
    """One replay, in a process of its own. cpu_seconds: of all its threads, without imports."""

    implementation: str
    cpu_seconds: float
    digest: RunDigestState
    outcomes: Outcomes
    dead_letters: dict[str, int]


def main(
    pages: Annotated[int, typer.Option(help="Pages of 10 items; 4,200,000 give 10 million events.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Rounds; each runs both.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the simulated log.")] = 0,
    log: Annotated[Path | None, typer.Option(hidden=True, help="Replay this log and print the result.")] = None,
) -> None:
    """Replay one simulated log with each, alternately; compare digests, outcomes and dead letters, print the ratio."""
    if log is not None:
        print(msgspec.json.encode(_replay(log)).decode())
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.jsonl")
        simulated = simulate(path, WorldSettings(pages=pages, seed=seed))
        ratios = []
        for number in range(1, rounds + 1):
            python, native = (_run(path, value) for value in ("0", "1"))
            if (python.digest, python.outcomes, python.dead_letters) != (
                native.digest,
                native.outcomes,
                native.dead_letters,
            ):
                raise PrectrError(f"the results differ: {python} and {native}")
            ratios.append(native.cpu_seconds / python.cpu_seconds)
            per_event = [run.cpu_seconds / simulated.lines * 1e6 for run in (python, native)]
            print(f"round {number}: Python {per_event[0]:.1f} µs an event, native core {per_event[1]:.1f}", flush=True)
    print(f"{simulated.lines:,} events, equal; native core / Python: {median(ratios):.2f} (median of {rounds})")


def _run(log: Path, native: str) -> Run:
    command = [sys.executable, "-m", "bench.native", "--log", str(log)]
    done = subprocess.run(command, env=os.environ | {"PRECTR_NATIVE": native}, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Run)


def _replay(log: Path) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay([str(log)], Path(folder), PipelineConfig(), config={}, sinks={}, label=LexicalLabeller())
        start = time.process_time()
        replay.run(flush=True)
        seconds = time.process_time() - start
        run = Run(described(), seconds, replay.digest.state(), replay.outcomes, replay.dead_letters)
        replay.close()
    return run


if __name__ == "__main__":
    typer.run(main)
