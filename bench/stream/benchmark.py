"""`python -m bench.stream`: the live system on one real broker, beside a bare loop and other stream processors."""

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
from bench.stream.client_baseline import WAYS
from bench.stream.competitors import PEERS, PeerRuns
from bench.stream.driver import Programs, Run, ends_kindly
from bench.stream.failover import peer_takeover, takeover
from bench.stream.latency import latency
from bench.stream.page import RESULTS, Result, page, tables
from bench.stream.runs import Bench, bare, ours
from bench.stream.workload import Workload, written
from prectr.ops.cli.console import meter, set_up_logging
from prectr.state.errors import PrectrError, UsageError

_LONGER: Final = 5
"""How many times longer the warm runs are."""
_FEW_PAGES: Final = 50_000
"""As many as Faust is given: it would take five minutes for all of them."""
_KILLS: Final = 3
_COUNTS: Final = ("1", "2", "3", "4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    pages: int
    rounds: int
    processes: list[int]
    peers: list[str]
    warm: bool
    latency: bool
    takeover: bool


class Measurement:
    """Does what is planned, one after the other; `result` holds what has been found so far."""

    def __init__(self, plan: Plan, bench: Bench, kept: Path, result: Result) -> None:
        """Prepare. kept: folder for logs and the peers' environments."""
        self.result = result
        self._plan = plan
        self._bench = bench
        self._kept = kept
        self._others = PeerRuns(bench, kept) if plan.peers else None

    def steps(self) -> list[Callable[[], None]]:
        """Everything that is to be done, in order."""
        plan = self._plan
        runs: list[Callable[[], None]] = [partial(self._bare, way) for way in WAYS]
        runs += [partial(self._ours, count, 1) for count in plan.processes]
        runs += [partial(self._peer, name, 1) for name in plan.peers]
        steps = runs * plan.rounds
        if plan.warm:
            steps += [partial(self._ours, count, _LONGER) for count in plan.processes] * plan.rounds
            steps += [partial(self._peer, "ks", _LONGER)] * (plan.rounds if "ks" in plan.peers else 0)
        if plan.takeover:
            states = (True, False)
            steps += [partial(self._takeover, count, kept) for count in plan.processes for kept in states] * _KILLS
            if "ks" in plan.peers:
                steps += [partial(self._peer_takeover, kept) for kept in states] * _KILLS
        if plan.latency:
            steps.append(self._latency)
        return steps

    def _log(self, longer: int = 1, limit: int | None = None) -> Workload:
        return written(self._kept, longer * self._plan.pages, limit)

    def _into(self, longer: int) -> list[Run]:
        return self.result.runs if longer == 1 else self.result.warm

    def _bare(self, way: str) -> None:
        self.result.runs.append(bare(self._bench, self._log(), way))

    def _ours(self, processes: int, longer: int) -> None:
        self._into(longer).append(ours(self._bench, self._log(longer), processes))

    def _peer(self, name: str, longer: int) -> None:
        assert self._others is not None
        log = self._log(limit=min(self._plan.pages, _FEW_PAGES)) if name == "faust" else self._log(longer)
        with self._others.loaded(log) as topic:
            self._into(longer).append(self._others.run(PEERS[name], log, topic))

    def _takeover(self, processes: int, kept: bool) -> None:
        self.result.takeovers.append(takeover(self._bench, self._log(), processes, kept=kept))

    def _peer_takeover(self, kept: bool) -> None:
        assert self._others is not None
        with self._others.loaded(self._log()) as topic:
            self.result.takeovers.append(peer_takeover(self._others, self._log(), topic, kept=kept))

    def _latency(self) -> None:
        fastest = [run.per_second for run in self.result.runs if run.name.startswith("ours, 1 ")]
        if not fastest:
            raise UsageError("--latency needs a run of one process, whose speed it halves: add 1 to --processes")
        self.result.latency = latency(self._bench, self._kept, median(fastest) / 2)


def main(
    pages: Annotated[int, typer.Option(min=1000, help="Pages of 10 items; half as many clicks come with them.")] = (
        200_000
    ),
    peers: Annotated[str, typer.Option(help="Others to run: ks, quix, faust; empty for none.")] = "ks,quix,faust",
    processes: Annotated[str, typer.Option(help="As how many processes to run ours, with commas.")] = "1,2",
    warm: Annotated[bool, typer.Option("--warm", help="Ours and ks on five times as many pages, too.")] = False,
    takeovers: Annotated[bool, typer.Option("--takeover", help="Kill processes, and see how others take over.")] = (
        False
    ),
    late: Annotated[bool, typer.Option("--latency", help="Latency at half of the speed measured.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is run; ratios are of medians.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file, after every run.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write bench/results/stream.md, after every run.")] = False,
) -> None:
    """Run both stages on a real broker, exactly once, and print events per CPU-second beside others' in the same run.

    PRECTR_BENCH_DIR names a folder in which logs and the peers' environments are kept for the next time.
    """
    plan = Plan(
        pages=pages,
        rounds=rounds,
        processes=[int(count) for count in _names(processes, _COUNTS, "--processes")],
        peers=_names(peers, tuple(PEERS), "--peers"),
        warm=warm,
        latency=late,
        takeover=takeovers,
    )
    set_up_logging()
    # The client warns of every tenth of a second without the processor, which is not news on a machine that is full.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    begun = time.monotonic()
    result = Result(command=command_line("bench.stream", sys.argv[1:]), pages=pages)
    with _place() as (folder, kept), running_broker(folder / "broker") as broker, ExitStack() as stack:
        programs = Programs(folder)
        stack.callback(programs.kill_all)
        bench = Bench(broker, folder, programs)
        steps = Measurement(plan, bench, kept, result).steps()
        with meter("bench.stream", len(steps)) as shown:
            for number, step in enumerate(steps):
                bench.say = partial(shown.update, number)
                try:
                    step()
                except PrectrError as error:
                    # What has been measured so far, and what comes, is worth keeping.
                    result.failures.append(str(error))
                    programs.kill_all()
                result.seconds = time.monotonic() - begun
                if json is not None:
                    json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
                if write:
                    RESULTS.write_text(page(result), encoding="utf-8")
            shown.update(len(steps))
    Console(width=None if sys.stdout.isatty() else 120).print(*tables(result))
    if result.failures:
        raise PrectrError("; ".join(result.failures))


@contextmanager
def _place() -> Iterator[tuple[Path, Path]]:
    """A folder that is gone at the end, also when the bench is ended, and one for what is worth keeping."""
    named = os.environ.get("PRECTR_BENCH_DIR")
    with ends_kindly(), tempfile.TemporaryDirectory(prefix="prectr-bench-") as folder:
        kept = Path(named).absolute() if named else Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        yield Path(folder), kept


def _names(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(known):
        raise UsageError(f"{flag} {text}: there is no {unknown.pop()}; there are {', '.join(known)}")
    return names
