"""`python -m bench.memory`: peak memory of `replay --no-train` on logs of increasing length."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.stream.simulator import WorldSettings, simulate

_PREAMBLE = "import sys; from prectr.ops.cli.main import main; sys.argv = ['prectr', *sys.argv[1:]]; main()"


class Row(msgspec.Struct):
    """One log: pages, bytes, and peak resident memory of its replay in MiB."""

    pages: int
    bytes: int
    peak_mib: int


def main(
    pages: Annotated[str, typer.Option(help="Lengths of the logs in pages, comma-separated, ascending.")] = (
        "20000,60000,200000,600000"
    ),
    days_per_page: Annotated[float, typer.Option(help="Event time per page in days, the same in all logs.")] = 2e-4,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file as JSON.")] = None,
) -> None:
    """Replay each log in a process of its own and print its peak resident memory.

    All logs have the same page rate, and so the same number of pending pages at a time.
    """
    rows = []
    for count in (int(text) for text in pages.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log.jsonl")
            simulated = simulate(log, WorldSettings(pages=count, days=count * days_per_page))
            command = [sys.executable, "-c", _PREAMBLE, "replay", str(log), "--run-dir", f"{folder}/run", "--no-train"]
            subprocess.run(command, check=True, capture_output=True)
            # This is the maximum over all child processes so far; the logs grow, so it is the current one's.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
            rows.append(Row(count, simulated.bytes, peak))
            print(f"{count:,} pages: {peak} MiB", file=sys.stderr)
    print("| pages | log | peak resident memory |\n|---|---|---|")
    for row in rows:
        print(f"| {row.pages:,} | {row.bytes / 1e6:,.0f} MB | {row.peak_mib} MiB |")
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")


if __name__ == "__main__":
    typer.run(main)
