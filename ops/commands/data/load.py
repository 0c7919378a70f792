"""`prectr load`: a log into Kafka."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, TopicPrefix, connection
from prectr.ops.cli.signals import stop_signals
from prectr.state.errors import PrectrError, UsageError


def load(
    files: Annotated[list[str], typer.Argument(help="Logs: files, directories or patterns, read in this order.")],
    bootstrap: Bootstrap,
    speed: Annotated[str, typer.Option(help="Seconds of event time a second, or max: as fast as it goes.")] = "max",
    skip_lines: Annotated[
        int, typer.Option(min=0, help="Lines of the log to pass over, as a load that was cut off says.")
    ] = 0,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Annotated[Path | None, typer.Option(help="Write how many events were sent to this file.")] = None,
) -> None:
    """Send every line of a log to the topic search-events, keyed by its user.

    A line that is no valid event is sent too, and ends as a dead letter; of a line over 1 MiB the first 1 MiB + 1
    bytes. A line that is too large for the topic is named and left out, and the exit code is 1.

    Example: prectr load log.jsonl.gz --bootstrap localhost:9092 --speed 10
    """
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415
    from prectr.stream.kafka.io.log_loader import load as send  # noqa: PLC0415

    try:
        pace = None if speed == "max" else float(speed)
    except ValueError as error:
        raise UsageError(f"--speed {speed}: give a number of seconds of event time a second, or max") from error
    if pace is not None and not 0 < pace < float("inf"):
        raise UsageError(f"--speed {speed}: must be more than 0; max sends as fast as it goes")
    names = Topics(topic_prefix)
    with progress_bar("load", 1.0) as bar, stop_signals() as stop:
        loaded = send(
            files,
            connection(bootstrap, client_config, connect_timeout),
            names,
            speed=pace,
            skip_lines=skip_lines,
            progress=lambda done, total: bar.update(done / total if total else 1.0),
            stop=stop,
        )
        stopped = stop()
    if json is not None:
        result = {"events": loaded.events, "topic": names.events, "lines": loaded.lines, "invalid": loaded.invalid}
        refused = {"oversized": loaded.oversized, "oversized_lines": loaded.oversized_lines}
        json.write_bytes(msgspec.json.encode(result | refused) + b"\n")
    typer.echo(f"{loaded.events:,} events sent to {names.events}")
    if loaded.invalid:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(loaded.invalid.items()))
        typer.echo(f"of them no valid events, so dead letters: {reasons}")
    if stopped:
        typer.echo(f"stopped behind line {loaded.lines:,} of the log: --skip-lines {loaded.lines} goes on there")
    if loaded.oversized:
        first = loaded.oversized_lines[0]
        raise PrectrError(
            f"{first.file} line {first.line}: {first.size:,} bytes are too large for {names.events}"
            + (f", and so are {loaded.oversized - 1:,} more lines" if loaded.oversized > 1 else "")
            + "; all others are loaded. `prectr topics check` says how to raise max.message.bytes; then load those "
            "lines alone"
        )
