"""`prectr dlq`: the dead letters of the live system."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, TopicPrefix, connection
from prectr.ops.cli.signals import stop_signals
from prectr.ops.cli.terminal_escape import printable, printable_value
from prectr.state.errors import PrectrError, UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look into the dead letters, and send them again.\n\nExample: prectr dlq list --bootstrap localhost:9092",
)

Reason = Annotated[str | None, typer.Option(help="Only letters of this reason, such as missing_field.")]
Json = Annotated[Path | None, typer.Option(help="Write the result to this file, for a program.")]
_MAX_SHOWN: Final = 20
"""Letters that `retry` names one by one; --json has 1,000."""


@app.callback()
def dlq() -> None:
    """Look into the dead letters, and send them again: as they are, or corrected.

    Example: prectr dlq list --bootstrap localhost:9092
    """


@app.command("list")
def list_dead_letters(
    bootstrap: Bootstrap,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="How many of the newest to list.")] = 10,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Json = None,
) -> None:
    """Count the dead letters by reason, topic and partition, and list the newest. Shows nothing of what they hold.

    Example: prectr dlq list --bootstrap localhost:9092 --reason missing_field
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415
    from prectr.stream.kafka.dlq.summary import summarise  # noqa: PLC0415

    with _progress("dead letters") as progress:
        found = summarise(
            connection(bootstrap, client_config, connect_timeout),
            Topics(topic_prefix),
            progress,
            reason=reason,
            limit=limit,
        )
    if json is not None:
        _write(json, found)
    console = Console(highlight=False, markup=False)
    which = f" of reason {printable(reason)}" if reason is not None else ""
    console.print(f"{found.dead_letters:,} dead letters{which}, {found.retried:,} of them retried")
    if found.counts:
        table = Table("reason", "topic", "partition", "letters", "retried")
        for count in found.counts:
            counts = str(count.partition), f"{count.dead_letters:,}", f"{count.retried:,}"
            table.add_row(printable(count.reason), printable(count.topic), *counts)
        console.print(table)
    if found.newest:
        table = Table("letter", "reason", "topic", "partition", "offset", "bytes", "time (UTC)", "", title="Newest")
        for entry in found.newest:
            where = printable(entry.topic), str(entry.partition), str(entry.offset)
            retried = "retried" if entry.retried else ""
            table.add_row(
                entry.dead_letter, printable(entry.reason), *where, f"{entry.size:,}", _time(entry.timestamp), retried
            )
        console.print(table)


@app.command()
def show(
    dead_letter: Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `prectr dlq list` shows it.")],
    bootstrap: Bootstrap,
    raw: Annotated[Path | None, typer.Option(help="Write the value's bytes to this file, and do not show it.")] = None,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Json = None,
) -> None:
    """Show a dead letter: why and whence, its headers, key and value.

    Example: prectr dlq show 0:17 --bootstrap localhost:9092
    """
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415
    from prectr.stream.kafka.dlq.reader import find_dead_letter  # noqa: PLC0415
    from prectr.stream.kafka.dlq.records import parse_ref  # noqa: PLC0415

    address = parse_ref(dead_letter)
    found = find_dead_letter(connection(bootstrap, client_config, connect_timeout), Topics(topic_prefix), address)
    if json is not None:
        _write(json, found)
    typer.echo(f"letter   {address}, {_time(found.timestamp)} UTC")
    typer.echo(f"reason   {printable(found.reason)}: {printable(found.detail)}")
    typer.echo(f"source   {printable(found.topic)} partition {found.partition} offset {found.offset}")
    for name, value in found.headers:
        typer.echo(f"header   {printable(name)}: {printable(value)}")
    typer.echo(f"key      {printable(found.key) if found.key is not None else '(none)'}")
    if raw is not None:
        raw.write_bytes(found.value)
        typer.echo(f"value    {len(found.value):,} bytes, written to {raw}")
    else:
        typer.echo(f"value    {len(found.value):,} bytes\n{printable_value(found.value)}")


@app.command()
def export(
    bootstrap: Bootstrap,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl; it must not be there yet.")],
    reason: Reason = None,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Json = None,
) -> None:
    """Write the dead letters that were not retried to a file, to be corrected and fed back with `retry --file`.

    One letter a line: its `event`, where it is JSON, is to be corrected, or else to be filled in from its `text`.

    Example: prectr dlq export --bootstrap localhost:9092 --reason missing_field --out letters.jsonl
    """
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415
    from prectr.stream.kafka.dlq.export import export_dead_letters  # noqa: PLC0415

    with _progress("export") as progress:
        count = export_dead_letters(
            connection(bootstrap, client_config, connect_timeout), Topics(topic_prefix), out, progress, reason=reason
        )
    if json is not None:
        _write(json, {"dead_letters": count, "file": str(out)})
    typer.echo(f"{out}: {count:,} letters; correct each `event`, then: prectr dlq retry --file {out}")


@app.command()
def retry(
    bootstrap: Bootstrap,
    dead_letters: Annotated[
        list[str] | None, typer.Argument(help="Letters to send as they are, PARTITION:OFFSET.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Send all letters of this reason as they are.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Send the corrected events of this file, as `export` writes it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Json = None,
) -> None:
    """Send dead letters to search-events again, each once: a repeated call leaves out what was retried before.

    An event that is still not valid is named and not sent; exit code 1 if there is one. Lines of --file that name no
    letter are sent at each call. An event of long ago is judged as any that comes so late: a click whose page has
    closed counts as late.

    Example: prectr dlq retry --file letters.jsonl --bootstrap localhost:9092 --dry-run
    """
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415
    from prectr.stream.kafka.dlq.records import parse_ref  # noqa: PLC0415
    from prectr.stream.kafka.dlq.retry import ByReason, ByRef, FromFile, retry_dead_letters  # noqa: PLC0415

    if sum((bool(dead_letters), reason is not None, file is not None)) != 1:
        raise UsageError("say what to retry, in one way: letters as PARTITION:OFFSET, or --reason, or --file FILE")
    selection = (
        FromFile(file)
        if file is not None
        else ByReason(reason)
        if reason is not None
        else ByRef([parse_ref(letter) for letter in dead_letters or []])
    )
    broker, topics = connection(bootstrap, client_config, connect_timeout), Topics(topic_prefix)
    confirm = sys.stdin.isatty() and not yes
    if dry_run or confirm:
        with _progress("dry run") as progress:
            result = retry_dead_letters(broker, topics, selection, progress, dry_run=True)
        _print_result(result, "would be sent to", topics.events)
        confirm = confirm and not dry_run and result.sent > 0
    if confirm:
        typer.confirm(f"Send {result.sent:,} events to {topics.events}?", abort=True, err=True)
    stopped = False
    if not dry_run:
        with _progress("retry") as progress, stop_signals() as stop:
            result = retry_dead_letters(broker, topics, selection, progress, stop=stop)
            stopped = stop()
        _print_result(result, "sent to", topics.events)
    if json is not None:
        _write(json, result)
    if stopped:
        raise PrectrError("stopped; what has been sent is noted, and the same command sends the rest")
    if result.rejected:
        raise PrectrError(
            f"{result.rejected:,} not sent, first {result.rejected_items[0].source}: {result.rejected_items[0].reason}; correct them"
            " (`prectr dlq export`, `prectr dlq retry --file`)"
        )


def _print_result(result: Any, verb: str, topic: str) -> None:
    for event in result.events[:_MAX_SHOWN]:
        typer.echo(f"{event.source} {verb} {topic} {event.partition}: {event.type} {printable(event.request_id)}")
    if result.sent > _MAX_SHOWN:
        typer.echo(f"… and {result.sent - min(_MAX_SHOWN, len(result.events)):,} more")
    for rejected in result.rejected_items[:_MAX_SHOWN]:
        typer.echo(f"{rejected.source} not sent: {rejected.reason}: {printable(rejected.detail)}")
    if result.rejected > _MAX_SHOWN:
        typer.echo(f"… and {result.rejected - min(_MAX_SHOWN, len(result.rejected_items)):,} more")
    typer.echo(
        f"{result.sent:,} events {verb} {topic}, {result.already_retried:,} left out (retried before), {result.rejected:,} not "
        "valid or not there"
    )


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    with progress_bar(title, 1.0) as bar:
        yield lambda done, total: bar.update(done / total if total else 1.0)
        bar.update(1.0)


def _write(path: Path, result: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
