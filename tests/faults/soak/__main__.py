"""`python -m tests.faults.soak`: an hour at half the capacity with a fault a minute."""

import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from testkit.kafka_broker import INSTALL_HINT, Broker, kafka_home
from testkit.provenance import ROOT, command_line
from tests.faults.soak.page import growing_trends, markdown
from tests.faults.soak.run import Soak

RESULTS = ROOT / "bench" / "results" / "soak.md"


def main(
    minutes: Annotated[float, typer.Option(min=1, help="Duration of the live part.")] = 60,
    rate: Annotated[float | None, typer.Option(min=1, help="Events per second; by default half the capacity.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the log, and kinds, moments and places of the faults.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Write bench/results/soak.md.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write samples and faults to this file.")] = None,
) -> None:
    """Run the live system with a fault a minute; memory, descriptors and threads must stay flat, and the result equal.

    The first minutes are warm-up: a run of less than half an hour shows growth that is none.

    Example: python -m tests.faults.soak --minutes 5
    """
    home = kafka_home()
    if home is None:
        typer.echo(f"no Kafka to test with: {INSTALL_HINT}")
        raise typer.Exit(1)
    folder = Path(tempfile.mkdtemp(prefix="prectr-soak-"))
    broker = Broker(home, folder / "kafka")
    failed = True
    try:
        broker.start()
        result = Soak(broker, folder, seed, _print_timestamped).run(minutes, rate)
        page = markdown(result, command_line("tests.faults.soak", sys.argv[1:]))
        failed = bool(result.problems or growing_trends(result))
    finally:
        broker.stop()
        if not failed:
            shutil.rmtree(folder)
        else:
            _print_timestamped(f"logs: {folder}")
    typer.echo(page)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if write:
        RESULTS.write_text(page)
    if failed:
        raise typer.Exit(1)


def _print_timestamped(text: str) -> None:
    typer.echo(f"{time.strftime('%X')} {text}")


if __name__ == "__main__":
    # The client library logs every failed attempt, and here the broker fails on purpose.
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    # Every process would compile torch again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    typer.run(main)
