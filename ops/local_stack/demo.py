"""Loads the demo log of `make up` and docker-compose.yml: simulated once, each line loaded once."""

import logging
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.ops.cli.client_config import connection
from prectr.ops.cli.console import progress_bar, set_up_logging
from prectr.ops.cli.options import Bootstrap
from prectr.ops.cli.signals import stop_signals
from prectr.state.errors import UsageError
from prectr.stream.kafka.client.end_offsets import fetch_end_offsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.log_loader import load
from prectr.stream.simulator import WorldSettings, simulate

_SLEEP: Final = 0.5
_CONNECT_TIMEOUT: Final = 120.0
_log = logging.getLogger("prectr")


def demo(
    bootstrap: Bootstrap,
    folder: Annotated[Path, typer.Option(help="Folder for the log; it is simulated once.")],
    pages: Annotated[int, typer.Option(min=1, help="Result pages of the log.")] = 20_000,
    speed: Annotated[str, typer.Option(help="Seconds of event time per second, or max.")] = "1000",
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Do not exit when all is loaded.")] = False,
) -> None:
    """Simulate a log of two weeks and load the part that is not in Kafka yet.

    Lines that are in the topic already are skipped, so this can be restarted at any time. Do not load another log into
    the same topic: its lines would be counted as well.

    Example: python -m prectr.ops.local_stack.demo --bootstrap localhost:9092 --folder demo-log
    """
    if speed != "max" and not speed.replace(".", "", 1).isdigit():
        raise UsageError(f"--speed {speed}: must be seconds of event time per second, such as 1000, or max")
    pace = None if speed == "max" else float(speed)
    broker, topics = connection(bootstrap, None, _CONNECT_TIMEOUT), Topics()
    log = _ensure_log(folder, pages)
    with stop_signals() as stop:
        while topics.events not in broker.call_admin(lambda admin: admin.list_topics()) and not stop():
            time.sleep(_SLEEP)
        if stop():
            return
        loaded_lines = sum(fetch_end_offsets(broker, topics.events))
        with progress_bar("load", 1.0) as bar:
            loaded = load(
                [str(log)],
                broker,
                topics,
                speed=pace,
                skip_lines=loaded_lines,
                progress=lambda done, total: bar.update(done / total if total else 1.0),
                stop=stop,
            )
        _log.info(
            "demo log: %d lines in %s, %d of them loaded now",
            loaded_lines + loaded.events,
            topics.events,
            loaded.events,
        )
        while keep_running and not stop():
            time.sleep(_SLEEP)


def _ensure_log(folder: Path, pages: int) -> Path:
    """Simulate the log unless it exists; written atomically."""
    log = folder / f"demo-{pages}.jsonl.gz"
    if not log.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"part-{log.name}"
        with progress_bar("simulate", pages) as bar:
            simulate(
                temporary,
                WorldSettings(pages=pages, catalogue="chorus"),
                progress=lambda done, _total: bar.update(done),
            )
        temporary.rename(log)
    return log


if __name__ == "__main__":
    set_up_logging()
    typer.run(demo)
