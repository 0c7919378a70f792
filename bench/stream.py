"""`python -m bench.stream`: the live system on one real broker, beside a bare loop and other stream processors."""

import logging
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from bench.stream_broker import running_broker
from bench.stream_driver import Programs, Run, ends_kindly
from bench.stream_page import tables
from bench.stream_peers import PEERS, PeerRuns
from bench.stream_runs import Bench, bare, ours
from bench.stream_workload import Workload, written
from ops.console import console, set_up_logging
from state.errors import UsageError

_LONGER: Final = 5
"""How much longer the warm runs are."""
_FEW_PAGES: Final = 50_000
"""As many as Faust is given: it would take five minutes for all of them."""


def main(
    pages: Annotated[int, typer.Option(help="Pages of 10 items; half as many clicks come with them.")] = 200_000,
    peers: Annotated[str, typer.Option(help="Others to run beside ours: ks, quix, faust; empty for none.")] = "",
    processes: Annotated[str, typer.Option(help="As how many processes to run ours, with commas.")] = "1,2",
    warm: Annotated[bool, typer.Option("--warm", help="Run ours and ks on five times as many pages, too.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Run both stages on a real broker, exactly once, and print events per CPU-second beside others' in the same run.

    PRECTR_BENCH_DIR names a folder in which logs and the peers' environments are kept for the next time.
    """
    wanted = _names(peers, tuple(PEERS), "--peers")
    counts = [int(count) for count in _names(processes, ("1", "2", "3", "4"), "--processes")]
    set_up_logging()
    # The client warns of every tenth of a second without the processor, which is not news on a machine that is full.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    runs: list[Run] = []
    with ExitStack() as stack:
        stack.enter_context(ends_kindly())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prectr-bench-")))
        named = os.environ.get("PRECTR_BENCH_DIR")
        kept = Path(named).absolute() if named else folder
        kept.mkdir(parents=True, exist_ok=True)
        broker = stack.enter_context(running_broker(folder / "broker"))
        programs = Programs(folder)
        stack.callback(programs.kill_all)
        bench = Bench(broker, folder, programs, console.print)
        others = PeerRuns(bench, kept)
        workload = written(kept, pages)
        for way in ("records", "frames"):
            runs.append(bare(bench, workload, way))
        runs += [_ours(bench, workload, count) for count in counts]
        for name in wanted:
            peer = PEERS[name]
            log = written(kept, pages, min(pages, _FEW_PAGES)) if name == "faust" else workload
            with others.loaded(log) as topic:
                runs.append(others.run(peer, log, topic, peer.title))
        if warm:
            longer = written(kept, _LONGER * pages)
            runs += [_ours(bench, longer, count) for count in counts]
            if "ks" in wanted:
                with others.loaded(longer) as topic:
                    runs.append(others.run(PEERS["ks"], longer, topic, PEERS["ks"].title))
    Console().print(*tables(runs))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(runs)) + b"\n")


def _ours(bench: Bench, workload: Workload, processes: int) -> Run:
    return ours(bench, workload, f"ours, {processes} process{'es' if processes > 1 else ''}", processes)


def _names(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(known):
        raise UsageError(f"{flag} {text}: there is no {unknown.pop()}; there are {', '.join(known)}")
    return names


if __name__ == "__main__":
    typer.run(main)
