"""`python -m bench.stream`: the live system on one real broker, beside a bare loop and other stream processors."""

import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bench.stream_broker import running_broker
from bench.stream_driver import Programs, Run, ends_kindly
from bench.stream_page import tables
from bench.stream_runs import Bench, bare, ours
from bench.stream_workload import written
from ops.console import console, set_up_logging


def main(
    pages: Annotated[int, typer.Option(help="Pages of 10 items; half as many clicks come with them.")] = 200_000,
    processes: Annotated[str, typer.Option(help="As how many processes to run, with commas.")] = "1,2",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Measure."""
    set_up_logging()
    # The client warns of every tenth of a second without the processor, which is not news on a machine that is full.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    runs: list[Run] = []
    with ExitStack() as stack:
        stack.enter_context(ends_kindly())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prectr-bench-")))
        broker = stack.enter_context(running_broker(folder / "broker"))
        programs = Programs(folder)
        stack.callback(programs.kill_all)
        bench = Bench(broker, folder, programs, console.print)
        workload = written(folder, pages)
        for way in ("records", "frames"):
            runs.append(bare(bench, workload, way))
        for count in map(int, processes.split(",")):
            runs.append(ours(bench, workload, f"ours, {count} process{'es' if count > 1 else ''}", count))
    console.print(*tables(runs))
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(runs)) + b"\n")


if __name__ == "__main__":
    typer.run(main)
