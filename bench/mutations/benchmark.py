"""`python -m bench.mutations`: a million mutated events through the live system on a real broker."""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench.mutations.measurement import Measurement
from bench.mutations.page import RESULTS, console_tables, render_page
from bench.stream.broker import running_broker
from bench.stream.driver import graceful_shutdown
from prectr.ops.cli.console import progress_bar, set_up_logging
from prectr.state.errors import PrectrError
from testkit.provenance import command_line


def main(
    events: Annotated[
        int, typer.Option(min=1000, help="Mutated events; valid ones are sent between them.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the events and their mutations.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write bench/results/mutations.md.")] = False,
) -> None:
    """Send mutated events through `load`, and as records, to two stream processes and a trainer; account for each.

    Exit code 1 if a check fails.
    """
    set_up_logging()
    # The client warns about every tenth of a second without CPU time, which is expected on a loaded machine.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    with (
        graceful_shutdown(),
        tempfile.TemporaryDirectory(prefix="prectr-mutations-") as folder,
        running_broker(Path(folder, "broker")) as broker,
        progress_bar("bench.mutations", 1.0) as shown,
    ):
        result = Measurement(broker.address, "", Path(folder), shown.update).run(events, seed)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if write:
        RESULTS.write_text(render_page(result, command_line("bench.mutations", sys.argv[1:])), encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 150).print(*console_tables(result))
    checks = [each for group in result.checks.values() for each in group]
    if failed := [each.name for each in checks if not each.holds]:
        raise PrectrError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
