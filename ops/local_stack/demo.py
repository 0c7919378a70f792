"""The demo log of `make up` and of docker-compose.yml: simulated once, loaded at a pace, each line once."""

import logging
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.ops.cli.console import meter, set_up_logging
from prectr.ops.cli.kafka_options import Bootstrap, connection
from prectr.ops.cli.signals import stop_signals
from prectr.state.errors import UsageError
from prectr.stream.kafka.client.end_offsets import ends_of
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.io.log_loader import load
from prectr.stream.simulator import simulate

_NAP: Final = 0.5
_WAIT: Final = 120.0
_log = logging.getLogger("prectr")


def demo(
    bootstrap: Bootstrap,
    folder: Annotated[Path, typer.Option(help="Where the log is kept, so that it is made once.")],
    pages: Annotated[int, typer.Option(min=1, help="Result pages of the log.")] = 20_000,
    speed: Annotated[str, typer.Option(help="Seconds of event time a second, or max.")] = "1000",
    stay: Annotated[bool, typer.Option("--stay", help="When all is loaded, wait to be ended.")] = False,
) -> None:
    """Simulate a log of two weeks, and load what of it is not in Kafka yet.

    Lines that the topic holds already are passed over, so that this may be started again at any time. Another log
    loaded into the same topic would count as part of it.

    Example: python -m prectr.ops.local_stack.demo --bootstrap localhost:9092 --folder demo-log
    """
    if speed != "max" and not speed.replace(".", "", 1).isdigit():
        raise UsageError(f"speed {speed}: give seconds of event time a second, such as 1000, or max")
    pace = None if speed == "max" else float(speed)
    broker, topics = connection(bootstrap, None, _WAIT), Topics()
    log = _made(folder, pages)
    with stop_signals() as stop:
        while topics.events not in broker.ask(lambda admin: admin.list_topics()) and not stop():
            time.sleep(_NAP)
        if stop():
            return
        there = sum(ends_of(broker, topics.events))
        with meter("load", 1.0) as shown:
            loaded = load(
                [str(log)],
                broker,
                topics,
                speed=pace,
                skip=there,
                progress=lambda done, total: shown.update(done / total if total else 1.0),
                stop=stop,
            )
        _log.info(
            "demo log: %d lines are in %s, %d of them since this start",
            there + loaded.events,
            topics.events,
            loaded.events,
        )
        while stay and not stop():
            time.sleep(_NAP)


def _made(folder: Path, pages: int) -> Path:
    """The log, simulated unless it is there; whole, or not there."""
    log = folder / f"demo-{pages}.jsonl.gz"
    if not log.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"part-{log.name}"
        with meter("simulate", pages) as shown:
            simulate(part, pages=pages, catalogue="chorus", progress=lambda done, _total: shown.update(done))
        part.rename(log)
    return log


if __name__ == "__main__":
    set_up_logging()
    typer.run(demo)
