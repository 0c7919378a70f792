"""`prectr load`: a log into Kafka."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ops.console import meter
from ops.interrupt import stop_signals
from ops.kafka_options import Bootstrap, ClientConfig, TopicPrefix, Wait, connection
from state.errors import UsageError


def load(
    files: Annotated[list[str], typer.Argument(help="Logs: files, directories or patterns, read in this order.")],
    bootstrap: Bootstrap,
    speed: Annotated[str, typer.Option(help="Seconds of event time a second, or max: as fast as it goes.")] = "max",
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    wait: Wait = 5.0,
    json: Annotated[Path | None, typer.Option(help="Write how many events were sent to this file.")] = None,
) -> None:
    """Send every line of a log to the topic search-events, keyed by its user.

    Example: prectr load log.jsonl.gz --bootstrap localhost:9092 --speed 10
    """
    from stream.kafka.load import load as send  # noqa: PLC0415
    from stream.kafka.topics import Topics  # noqa: PLC0415

    try:
        pace = None if speed == "max" else float(speed)
    except ValueError as error:
        raise UsageError(f"--speed {speed}: give a number of seconds of event time a second, or max") from error
    if pace is not None and not 0 < pace < float("inf"):
        raise UsageError(f"--speed {speed}: must be more than 0; max sends as fast as it goes")
    names = Topics(topic_prefix)
    with meter("load", 1.0) as shown, stop_signals() as stop:
        sent = send(
            files,
            connection(bootstrap, client_config, wait),
            names,
            speed=pace,
            progress=lambda done, total: shown.update(done / total if total else 1.0),
            stop=stop,
        )
    if json is not None:
        json.write_bytes(msgspec.json.encode({"events": sent, "topic": names.events}) + b"\n")
    typer.echo(f"{sent:,} events sent to {names.events}")
