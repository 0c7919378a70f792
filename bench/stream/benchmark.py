"""`python -m bench.stream`: the live system on a real broker, against a client baseline and other stream processors."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from bench.provenance import command_line
from bench.stream.broker import running_broker
from bench.stream.client_baseline import CLIENT_MODES
from bench.stream.competitors.runs import COMPETITORS, CompetitorRuns
from bench.stream.driver import ProgramGroup, Run, graceful_shutdown
from bench.stream.failover import measure_competitor_failover, measure_failover
from bench.stream.latency import measure_latency
from bench.stream.page import RESULTS, Result, console_tables, render_page
from bench.stream.runs import StreamBench, run_client_baseline, run_prectr
from bench.stream.workload import Workload, generate_workload
from prectr.ops.cli.console import progress_bar, set_up_logging
from prectr.state.errors import PrectrError, UsageError

_WARM_FACTOR: Final = 5
"""Size of the warm runs' log, relative to the others."""
_FAUST_PAGES: Final = 50_000
"""Maximum for Faust, which would need five minutes for the full log."""
_FAILOVER_REPEATS: Final = 3
_PROCESS_COUNTS: Final = ("1", "2", "3", "4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    pages: int
    rounds: int
    processes: list[int]
    competitors: list[str]
    warm: bool
    latency: bool
    failover: bool


class Measurement:
    """Runs a plan step by step; `result` holds the results so far."""

    def __init__(self, plan: Plan, bench: StreamBench, cache_dir: Path, result: Result) -> None:
        """cache_dir: folder for logs and the competitors' environments."""
        self.result = result
        self._plan = plan
        self._bench = bench
        self._cache_dir = cache_dir
        self._competitors = CompetitorRuns(bench, cache_dir) if plan.competitors else None

    def steps(self) -> list[Callable[[], None]]:
        """All steps of the plan, in order."""
        plan = self._plan
        runs: list[Callable[[], None]] = [partial(self._run_client_baseline, mode) for mode in CLIENT_MODES]
        runs += [partial(self._run_prectr, count, 1) for count in plan.processes]
        runs += [partial(self._run_competitor, name, 1) for name in plan.competitors]
        steps = runs * plan.rounds
        if plan.warm:
            steps += [partial(self._run_prectr, count, _WARM_FACTOR) for count in plan.processes] * plan.rounds
            steps += [partial(self._run_competitor, "ks", _WARM_FACTOR)] * (
                plan.rounds if "ks" in plan.competitors else 0
            )
        if plan.failover:
            states = (True, False)
            steps += [
                partial(self._measure_failover, count, state_kept) for count in plan.processes for state_kept in states
            ] * _FAILOVER_REPEATS
            if "ks" in plan.competitors:
                steps += [partial(self._measure_competitor_failover, kept) for kept in states] * _FAILOVER_REPEATS
        if plan.latency:
            steps.append(self._measure_latency)
        return steps

    def _workload(self, factor: int = 1, limit: int | None = None) -> Workload:
        return generate_workload(self._cache_dir, factor * self._plan.pages, limit)

    def _runs(self, factor: int) -> list[Run]:
        return self.result.runs if factor == 1 else self.result.warm

    def _run_client_baseline(self, mode: str) -> None:
        self.result.runs.append(run_client_baseline(self._bench, self._workload(), mode))

    def _run_prectr(self, processes: int, factor: int) -> None:
        self._runs(factor).append(run_prectr(self._bench, self._workload(factor), processes))

    def _run_competitor(self, name: str, factor: int) -> None:
        assert self._competitors is not None
        log = self._workload(limit=min(self._plan.pages, _FAUST_PAGES)) if name == "faust" else self._workload(factor)
        with self._competitors.loaded(log) as topic:
            self._runs(factor).append(self._competitors.run(COMPETITORS[name], log, topic))

    def _measure_failover(self, processes: int, state_kept: bool) -> None:
        self.result.failovers.append(measure_failover(self._bench, self._workload(), processes, state_kept=state_kept))

    def _measure_competitor_failover(self, state_kept: bool) -> None:
        assert self._competitors is not None
        with self._competitors.loaded(self._workload()) as topic:
            self.result.failovers.append(
                measure_competitor_failover(self._competitors, self._workload(), topic, state_kept=state_kept)
            )

    def _measure_latency(self) -> None:
        fastest = [run.events_per_second for run in self.result.runs if run.name.startswith("ours, 1 ")]
        if not fastest:
            raise UsageError("--latency feeds half the speed of a run of one process: add 1 to --processes")
        self.result.latency = measure_latency(self._bench, self._cache_dir, median(fastest) / 2)


def main(
    pages: Annotated[int, typer.Option(min=1000, help="Pages of 10 items; the log has half as many clicks.")] = 200_000,
    competitors: Annotated[
        str, typer.Option(help="Competitors to run: ks, quix, faust; empty for none.")
    ] = "ks,quix,faust",
    processes: Annotated[str, typer.Option(help="Numbers of stream processes to measure, comma-separated.")] = "1,2",
    warm: Annotated[bool, typer.Option("--warm", help="Also run on five times as many pages.")] = False,
    failover: Annotated[bool, typer.Option("--failover", help="Kill processes and measure the failover time.")] = False,
    latency: Annotated[bool, typer.Option("--latency", help="Measure latency at half the measured speed.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions of all runs; ratios are of medians.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON, after every run.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write bench/results/stream.md, after every run.")] = False,
) -> None:
    """Run both stages exactly-once on a real broker; print events per CPU-second and ratios to competitors.

    PRECTR_BENCH_DIR names a folder that keeps logs and the competitors' environments for later runs.
    """
    plan = Plan(
        pages=pages,
        rounds=rounds,
        processes=[int(count) for count in _parse_names(processes, _PROCESS_COUNTS, "--processes")],
        competitors=_parse_names(competitors, tuple(COMPETITORS), "--competitors"),
        warm=warm,
        latency=latency,
        failover=failover,
    )
    set_up_logging()
    # The client warns about every tenth of a second without CPU time, which is expected on a loaded machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    start = time.monotonic()
    result = Result(command=command_line("bench.stream", sys.argv[1:]), pages=pages)
    with _work_folders() as (folder, cache_dir), running_broker(folder / "broker") as broker, ExitStack() as stack:
        programs = ProgramGroup(folder)
        stack.callback(programs.kill_all)
        bench = StreamBench(broker, folder, programs)
        steps = Measurement(plan, bench, cache_dir, result).steps()
        with progress_bar("bench.stream", len(steps)) as shown:
            for number, step in enumerate(steps):
                bench.log_progress = partial(shown.update, number)
                try:
                    step()
                except PrectrError as error:
                    # Keep the results so far, and continue with the other steps.
                    result.failures.append(str(error))
                    programs.kill_all()
                result.seconds = time.monotonic() - start
                if json is not None:
                    json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
                if write:
                    RESULTS.write_text(render_page(result), encoding="utf-8")
            shown.update(len(steps))
    Console(width=None if sys.stdout.isatty() else 120).print(*console_tables(result))
    if result.failures:
        raise PrectrError("; ".join(result.failures))


@contextmanager
def _work_folders() -> Iterator[tuple[Path, Path]]:
    """A temporary folder, removed also when the benchmark is interrupted, and a cache folder."""
    named = os.environ.get("PRECTR_BENCH_DIR")
    with graceful_shutdown(), tempfile.TemporaryDirectory(prefix="prectr-bench-") as folder:
        cache_dir = Path(named).absolute() if named else Path(folder)
        cache_dir.mkdir(parents=True, exist_ok=True)
        yield Path(folder), cache_dir


def _parse_names(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(known):
        raise UsageError(f"{flag} {text}: unknown {unknown.pop()}; choose from {', '.join(known)}")
    return names
