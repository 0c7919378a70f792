"""`python -m tests.faults.drill`: begins a drill, breaks the system without saying how, and tells afterwards."""

import base64
import json
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from testkit.kafka_broker import INSTALL_HINT, kafka_home
from tests.faults.drill.environment import Drill
from tests.faults.drill.faults import DRAWN, FAULTS, draw

_MAX_DELAY = 30
app = typer.Typer(add_completion=False, no_args_is_help=True, help="A drill for people on call.")
_console = Console(highlight=False)
Folder = Annotated[Path, typer.Argument(help="Folder of the drill.")]


@app.command()
def begin(
    folder: Folder,
    seed: Annotated[int, typer.Option(help="Decides which ten faults are drawn, and in which order.")] = 1,
    number: Annotated[int, typer.Option(min=1, max=DRAWN, help="Which of them it will be.")] = 1,
) -> None:
    """Start broker, system, Prometheus and producer in a new folder, and draw the fault to come.

    Example: python -m tests.faults.drill begin /tmp/drill-1 --number 1
    """
    home = kafka_home()
    if home is None:
        _console.print(f"no Kafka to drill with: {INSTALL_HINT}")
        raise typer.Exit(1)
    drill = Drill(folder)
    drill.begin(home)
    seal(drill, {"name": draw(seed)[number - 1]})
    ports = drill.settings
    rows = {
        "broker": f"{drill.bootstrap}; {folder}/broker.sh start|stop|kill, log {folder}/broker.log, "
        f"settings {folder}/kafka/server.properties",
        "system": f"{folder}/run.sh start|stop|kill, logs {drill.run_dir}/logs and {folder}/run.log",
        "run folder": f"{drill.run_dir}, snapshots {folder}/snapshots",
        "metrics": f"trainer 127.0.0.1:{ports['metrics_port']}, monitor and stream workers on the ports after it",
        "monitor": f"http://127.0.0.1:{ports['monitor_port']}/",
        "Prometheus": f"http://127.0.0.1:{ports['prometheus_port']}/, alerts at /classic/alerts or /alerts",
        "others": f"logs {folder}/*.log; a worker that somebody else starts logs to {folder}/other-worker.log",
        "producer": f"log {folder}/producer.log; python -m tests.faults.drill producer {folder} starts it again",
    }
    for name, text in rows.items():
        _console.print(f"{name:<12}{text}", soft_wrap=True)


@app.command()
def fault(folder: Folder) -> None:
    """Do the fault within half a minute; it is not named.

    Example: python -m tests.faults.drill fault /tmp/drill-1
    """
    drill = Drill(folder)
    time.sleep(secrets.randbelow(_MAX_DELAY))
    sealed = unseal(drill)
    at = time.time()
    seal(drill, {**sealed, "at": at, "what": FAULTS[sealed["name"]](drill)})
    _console.print(f"something happened in the last {_MAX_DELAY} s")


@app.command()
def producer(folder: Folder) -> None:
    """Roll the producer back to the release that worked, or start it again.

    Example: python -m tests.faults.drill producer /tmp/drill-1
    """
    Drill(folder).start_producer()


@app.command()
def reveal(folder: Folder) -> None:
    """Say what the fault was and when it began.

    Example: python -m tests.faults.drill reveal /tmp/drill-1
    """
    sealed = unseal(Drill(folder))
    _console.print(f"{time.strftime('%H:%M:%S', time.localtime(sealed['at']))} {sealed['what']}", soft_wrap=True)


@app.command()
def end(folder: Folder) -> None:
    """Stop everything; the folder stays.

    Example: python -m tests.faults.drill end /tmp/drill-1
    """
    Drill(folder).end()


def seal(drill: Drill, content: dict[str, Any]) -> None:
    """Write what is to come so that nobody reads it by accident."""
    (drill.folder / ".sealed").write_bytes(base64.b85encode(json.dumps(content).encode()))


def unseal(drill: Drill) -> dict[str, Any]:
    """Read it."""
    content: dict[str, Any] = json.loads(base64.b85decode((drill.folder / ".sealed").read_bytes()))
    return content


if __name__ == "__main__":
    app()
