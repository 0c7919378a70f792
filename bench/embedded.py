"""`python -m bench.embedded`: events per CPU-second of both stages with durable state, relative to decoding alone."""

import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer

from prectr.stream.config import PipelineConfig
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.lexical_labeller import LexicalLabeller
from prectr.stream.readers import open_log
from prectr.stream.replay.runner import STEP_LINES, Replay
from prectr.stream.simulator import WorldSettings, simulate


class RoundResult(msgspec.Struct):
    """One round: events per CPU-second (all threads) of decoding and replay, and replay / decode."""

    decode: float
    replay: float
    ratio: float


class Result(msgspec.Struct):
    """Medians over rounds; each ratio is within one round."""

    pages: int
    events: int
    bytes: int
    decode: float
    replay: float
    ratio: float
    best_replay: float
    rounds: list[RoundResult]


def main(
    pages: Annotated[int, typer.Option(help="Pages of 10 items to simulate.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Rounds; both sides are measured in each.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the simulated log.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file as JSON.")] = None,
) -> None:
    """Measure decoding alone and `replay --no-train` alternately; print events per CPU-second and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        simulated = simulate(log, WorldSettings(pages=pages, seed=seed))
        measured = []
        for number in range(rounds):
            decode = _events_per_cpu_second(simulated.lines, partial(_decode, log))
            replay = _events_per_cpu_second(simulated.lines, partial(_replay, log, Path(folder, f"run-{number}")))
            measured.append(RoundResult(decode, replay, replay / decode))
            print(f"round {number + 1}: decode {decode:,.0f}, replay --no-train {replay:,.0f} events per CPU-second")
        result = Result(
            pages,
            simulated.lines,
            simulated.bytes,
            median(one.decode for one in measured),
            median(one.replay for one in measured),
            median(one.ratio for one in measured),
            max(one.replay for one in measured),
            measured,
        )
    print(f"{result.events:,} events of {result.bytes / result.events:,.0f} bytes; median of {rounds} rounds")
    print("| | events per CPU-second | relative to decoding |\n|---|---|---|")
    print(f"| read and decode alone | {result.decode:,.0f} | 1 |")
    print(f"| replay --no-train: both stages, durable state, digests | {result.replay:,.0f} | {result.ratio:.3f} |")
    print(f"best round: {result.best_replay:,.0f}")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def _decode(log: Path) -> None:
    gc.disable()
    for batch in open_log([str(log)])[0].batches(0, STEP_LINES):
        for start in range(0, len(batch.lines), 512):
            decode_lines(batch.lines[start : start + 512])
    gc.enable()


def _replay(log: Path, run_dir: Path) -> None:
    run = Replay([str(log)], run_dir, PipelineConfig(), config={}, sinks={}, label=LexicalLabeller())
    run.run(flush=True)
    run.close()


def _events_per_cpu_second(events: int, act: Callable[[], None]) -> float:
    start = time.process_time()
    act()
    return events / (time.process_time() - start)


if __name__ == "__main__":
    typer.run(main)
