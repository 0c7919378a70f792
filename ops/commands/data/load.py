"""`prectr load`: sends a log to Kafka."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import FileOrder, JsonFile, KafkaOptions, OrderChoice
from prectr.ops.cli.signals import stop_signals
from prectr.ops.json_file import write_json
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.readers import check_log

if TYPE_CHECKING:
    from prectr.stream.kafka.io.log_loader import LoadResult


@with_option_groups
def load(
    files: Annotated[list[str], typer.Argument(help="Logs: files, folders or patterns.")],
    kafka: KafkaOptions,
    speed: Annotated[
        str, typer.Option(help="Seconds of event time to send per second, or max: as fast as possible.")
    ] = "max",
    skip_lines: Annotated[
        int, typer.Option(min=0, help="Lines of the log to skip; an interrupted load prints the number.")
    ] = 0,
    order: FileOrder = OrderChoice.TIME,
    json: JsonFile = None,
) -> None:
    """Send every line of a log to the topic search-events, keyed by user.

    Invalid events are sent as well and become dead letters; lines over 1 MiB are cut to 1 MiB + 1 bytes. A line that
    exceeds the topic's max.message.bytes is reported and skipped, with exit code 1.

    Example: prectr load log.jsonl.gz --bootstrap localhost:9092 --speed 10
    """
    from prectr.ops.limits.check import check_limits  # noqa: PLC0415
    from prectr.ops.limits.needs import process_needs  # noqa: PLC0415
    from prectr.stream.kafka.io.log_loader import load as send  # noqa: PLC0415

    pace = _parse_speed(speed)
    check_log(files)
    check_limits(process_needs({}))
    topics = kafka.topics()
    with progress_bar("load", 1.0) as bar, stop_signals() as stop:
        loaded = send(
            files,
            kafka.connection(),
            topics,
            speed=pace,
            skip_lines=skip_lines,
            order=order.value,
            progress=lambda done, total: bar.update(done / total if total else 1.0),
            stop=stop,
        )
        stopped = stop()
    _report(loaded, topics.events, json, stopped=stopped)


def _parse_speed(speed: str) -> float | None:
    """Seconds of event time per second; None for no limit."""
    try:
        pace = None if speed == "max" else float(speed)
    except ValueError as error:
        raise UsageError(f"--speed {speed}: must be a number of seconds of event time per second, or max") from error
    if pace is not None and not 0 < pace < float("inf"):
        raise UsageError(f"--speed {speed}: must be greater than 0; max sends as fast as possible")
    return pace


def _report(loaded: "LoadResult", topic: str, json: Path | None, *, stopped: bool) -> None:
    result = {"events": loaded.events, "topic": topic, "lines": loaded.lines, "invalid": loaded.invalid}
    write_json(json, result | {"oversized": loaded.oversized, "oversized_lines": loaded.oversized_lines})
    typer.echo(f"{loaded.events:,} events sent to {topic}")
    if loaded.invalid:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(loaded.invalid.items()))
        typer.echo(f"invalid, will become dead letters: {reasons}")
    if stopped:
        typer.echo(f"stopped after line {loaded.lines:,} of the log; resume with --skip-lines {loaded.lines}")
    if loaded.oversized:
        first = loaded.oversized_lines[0]
        more = f" ({loaded.oversized - 1:,} more lines as well)" if loaded.oversized > 1 else ""
        raise PrectrError(
            f"{first.file} line {first.line}: {first.size:,} bytes exceed the maximum of {topic}{more}; all other "
            "lines are loaded. Raise max.message.bytes (see `prectr topics check`), then load those lines alone"
        )
