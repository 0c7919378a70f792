"""`prectr dlq`: lists, shows and exports dead letters of the live system or of a replay, and retries live ones."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import ConfigFile, DeadLetterOptions, JsonFile, KafkaOptions
from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.signals import stop_signals
from prectr.ops.cli.terminal_escape import printable, printable_value
from prectr.ops.json_file import write_json
from prectr.ops.report.numbers import timestamp
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import PrectrError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from prectr.stream.kafka.dlq.retry import ByReason, ByRef, FromFile, RetryResult
    from prectr.stream.kafka.dlq.summary import DeadLetterSummary
    from prectr.stream.replay.run_dead_letters import RunDeadLetterSummary

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List, show, export and retry dead letters.\n\nExample: prectr dlq list --bootstrap localhost:9092",
)

Reason = Annotated[str | None, typer.Option(help="Only dead letters with this reason, such as missing_field.")]
_MAX_SHOWN: Final = 20
"""Dead letters that `retry` lists on the terminal; --json lists 1,000."""


@app.callback()
def dlq() -> None:
    """List, show and export dead letters, and retry them unchanged or corrected.

    Example: prectr dlq list --bootstrap localhost:9092
    """


@app.command("list")
@with_option_groups
def list_dead_letters(
    source: DeadLetterOptions,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="Number of newest dead letters to list.")] = 10,
    json: JsonFile = None,
) -> None:
    """Count dead letters by reason and source, and list the newest ones without their content.

    Example: prectr dlq list --bootstrap localhost:9092 --reason missing_field

    Of a replay: prectr dlq list --run-dir run
    """
    run_dir = source.replay()
    if run_dir is not None:
        from prectr.stream.replay.run_dead_letters import summarise_run  # noqa: PLC0415

        with _progress("dead letters") as progress:
            of_run = summarise_run(run_dir, progress, reason=reason, limit=limit)
        write_json(json, of_run)
        _print_run_summary(of_run, reason)
        return
    from prectr.stream.kafka.dlq.summary import summarise  # noqa: PLC0415

    with _progress("dead letters") as progress:
        found = summarise(source.connection(), source.topics(), progress, reason=reason, limit=limit)
    write_json(json, found)
    _print_summary(found, reason)


@app.command()
@with_option_groups
def show(
    dead_letter: Annotated[
        str, typer.Argument(help="PARTITION:OFFSET, or the number in a replay, as shown by `prectr dlq list`.")
    ],
    source: DeadLetterOptions,
    raw: Annotated[Path | None, typer.Option(help="Write the original bytes to this file instead.")] = None,
    json: JsonFile = None,
) -> None:
    """Show a dead letter: reason, source and value; of the live system also headers and key.

    Example: prectr dlq show 0:17 --bootstrap localhost:9092

    Of a replay: prectr dlq show 17 --run-dir run
    """
    run_dir = source.replay()
    if run_dir is not None:
        from prectr.stream.replay.run_dead_letters import find_run_dead_letter  # noqa: PLC0415

        letter = find_run_dead_letter(run_dir, dead_letter)
        write_json(json, letter)
        typer.echo(f"reason   {printable(letter.reason)}: {printable(letter.detail)}")
        others = f", and {letter.count - 1:,} equal ones after it" if letter.count > 1 else ""
        typer.echo(f"source   {printable(letter.topic)} line {letter.offset + 1}{others}")
        _show_value(letter.value, raw)
        return
    from prectr.stream.kafka.dlq.reader import find_dead_letter  # noqa: PLC0415
    from prectr.stream.kafka.dlq.records import parse_ref  # noqa: PLC0415

    ref = parse_ref(dead_letter)
    found = find_dead_letter(source.connection(), source.topics(), ref)
    write_json(json, found)
    typer.echo(f"ref      {ref}, {timestamp(found.timestamp)} UTC")
    typer.echo(f"reason   {printable(found.reason)}: {printable(found.detail)}")
    typer.echo(f"source   {printable(found.topic)} partition {found.partition} offset {found.offset}")
    for name, value in found.headers:
        typer.echo(f"header   {printable(name)}: {printable(value)}")
    typer.echo(f"key      {printable(found.key) if found.key is not None else '(none)'}")
    _show_value(found.value, raw)


@app.command()
@with_option_groups
def export(
    source: DeadLetterOptions,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl; must not exist yet.")],
    reason: Reason = None,
    json: JsonFile = None,
) -> None:
    """Write dead letters to a file, to be corrected; live, those that were not retried yet, for `retry --file`.

    One dead letter per line. Correct the field `event`; if the value is not JSON, fill it in from the field `text`.

    Example: prectr dlq export --bootstrap localhost:9092 --reason missing_field --out dead-letters.jsonl

    Of a replay: prectr dlq export --run-dir run --out dead-letters.jsonl
    """
    run_dir = source.replay()
    if run_dir is not None:
        from prectr.stream.replay.run_dead_letters import export_run_dead_letters  # noqa: PLC0415

        with _progress("export") as progress:
            count = export_run_dead_letters(run_dir, out, progress, reason=reason)
        todo = f"correct each `event`; jq -c .event {out} then writes a log"
    else:
        from prectr.stream.kafka.dlq.export import export_dead_letters  # noqa: PLC0415

        with _progress("export") as progress:
            count = export_dead_letters(source.connection(), source.topics(), out, progress, reason=reason)
        todo = f"correct each `event`, then run prectr dlq retry --file {out}"
    write_json(json, {"dead_letters": count, "file": str(out)})
    typer.echo(f"{out}: {count:,} dead letters; {todo}")


@app.command()
@with_option_groups
def retry(
    kafka: KafkaOptions,
    dead_letters: Annotated[
        list[str] | None, typer.Argument(help="Dead letters to send unchanged, as PARTITION:OFFSET.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Send all dead letters with this reason, unchanged.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Send the corrected events of a file written by `prectr dlq export`.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Send dead letters to search-events again, each once: a repeated call skips those that were retried before.

    Events that are still invalid are listed and not sent, with exit code 1. Lines of --file without a dead letter
    reference are sent on every call. A retried event is processed like any event that arrives now: a click on a page
    that has closed counts as late. How many are late is said with --dry-run, before the confirmation and at the end;
    --config has the attribution window.

    Example: prectr dlq retry --file dead-letters.jsonl --bootstrap localhost:9092 --dry-run
    """
    from prectr.stream.kafka.dlq.lateness import read_late_before  # noqa: PLC0415
    from prectr.stream.kafka.dlq.retry import retry_dead_letters  # noqa: PLC0415

    selection = _selection(dead_letters, reason, file)
    connection, topics = kafka.connection(), kafka.topics()
    window = load_settings(config).pipeline.attribution_window
    is_late = read_late_before(connection, topics, round(window * 1000))
    confirm = sys.stdin.isatty() and not yes
    if dry_run or confirm:
        with _progress("dry run") as progress:
            result = retry_dead_letters(connection, topics, selection, progress, dry_run=True, is_late=is_late)
        _print_result(result, "would be sent to", topics.events)
        confirm = confirm and not dry_run and result.sent > 0
    if confirm:
        typer.confirm(f"Send {result.sent:,} events to {topics.events}?", abort=True, err=True)
    stopped = False
    if not dry_run:
        with _progress("retry") as progress, stop_signals() as stop:
            result = retry_dead_letters(connection, topics, selection, progress, is_late=is_late, stop=stop)
            stopped = stop()
        _print_result(result, "sent to", topics.events)
    write_json(json, result)
    if stopped:
        raise PrectrError("stopped; the events sent so far are recorded, rerun the command to send the rest")
    if result.rejected:
        first = result.rejected_items[0]
        raise PrectrError(
            f"{result.rejected:,} not sent, first {first.source}: {first.reason}; correct them with `prectr dlq export`"
            " and `prectr dlq retry --file`"
        )


def _print_summary(found: "DeadLetterSummary", reason: str | None) -> None:
    console = stdout_console(highlight=False, markup=False)
    console.print(f"{found.dead_letters:,} dead letters{_with_reason(reason)}, {found.retried:,} of them retried")
    if found.counts:
        table = _table("", "reason", "topic", "partition", "dead letters", "retried")
        for count in found.counts:
            counts = str(count.partition), f"{count.dead_letters:,}", f"{count.retried:,}"
            table.add_row(printable(count.reason), printable(count.topic), *counts)
        console.print(table)
    if found.newest:
        # A topic of its own in each row does not fit into 80 columns.
        topics = {entry.topic for entry in found.newest}
        only = f", from partition:offset of {printable(topics.pop())}" if len(topics) == 1 else ""
        table = _table(f"Newest{only}", "dead letter", "reason", "from", "bytes", "time (UTC)", "")
        for entry in found.newest:
            place = f"{entry.partition}:{entry.offset}"
            table.add_row(
                entry.dead_letter,
                printable(entry.reason),
                place if only else f"{printable(entry.topic)} {place}",
                f"{entry.size:,}",
                timestamp(entry.timestamp),
                "retried" if entry.retried else "",
            )
        console.print(table)


def _print_run_summary(found: "RunDeadLetterSummary", reason: str | None) -> None:
    console = stdout_console(highlight=False, markup=False)
    console.print(f"{found.dead_letters:,} rejected records{_with_reason(reason)}")
    if found.counts:
        table = _table("", "reason", "records", "file")
        for count in found.counts:
            table.add_row(printable(count.reason), f"{count.dead_letters:,}", printable(count.file))
        console.print(table)
    if found.newest:
        console.print("\nNewest: dead letter, reason, source")
    for entry in found.newest:
        # Reasons in words and paths are too long for columns.
        others = f", {entry.records:,} equal records" if entry.records > 1 else ""
        source = f"{printable(entry.file)} line {entry.line:,}, {entry.size:,} bytes{others}"
        console.print(f"{entry.dead_letter:>6}  {printable(entry.reason)}  {source}", soft_wrap=True)
        console.print(f"        {printable(entry.detail)}", soft_wrap=True)


def _table(title: str, *columns: str) -> "Table":
    """A table without lines between its columns, so that more of it fits into 80."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=f"\n{title}" if title else None, box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.title_style = table.header_style = "bold"
    for column in columns:
        is_text = column in ("reason", "topic", "file", "from")
        table.add_column(column, overflow="fold" if is_text else "ellipsis", no_wrap=not is_text)
    return table


def _with_reason(reason: str | None) -> str:
    return f" with reason {printable(reason)}" if reason is not None else ""


def _show_value(value: bytes, raw: Path | None) -> None:
    if raw is not None:
        raw.write_bytes(value)
        typer.echo(f"value    {len(value):,} bytes, written to {raw}")
    else:
        typer.echo(f"value    {len(value):,} bytes\n{printable_value(value)}")


def _selection(dead_letters: list[str] | None, reason: str | None, file: Path | None) -> "ByRef | ByReason | FromFile":
    """Which dead letters to retry; raises UsageError unless exactly one way to select them is given."""
    from prectr.stream.kafka.dlq.records import parse_ref  # noqa: PLC0415
    from prectr.stream.kafka.dlq.retry import ByReason, ByRef, FromFile  # noqa: PLC0415

    if sum((bool(dead_letters), reason is not None, file is not None)) != 1:
        raise UsageError("select what to retry in exactly one way: PARTITION:OFFSET ..., --reason or --file")
    if file is not None:
        return FromFile(file)
    if reason is not None:
        return ByReason(reason)
    return ByRef([parse_ref(ref) for ref in dead_letters or []])


def _print_result(result: "RetryResult", verb: str, topic: str) -> None:
    for event in result.events[:_MAX_SHOWN]:
        typer.echo(f"{event.source} {verb} {topic} {event.partition}: {event.type} {printable(event.request_id)}")
    if result.sent > _MAX_SHOWN:
        typer.echo(f"… and {result.sent - min(_MAX_SHOWN, len(result.events)):,} more")
    for rejected in result.rejected_items[:_MAX_SHOWN]:
        typer.echo(f"{rejected.source} not sent: {rejected.reason}: {printable(rejected.detail)}")
    if result.rejected > _MAX_SHOWN:
        typer.echo(f"… and {result.rejected - min(_MAX_SHOWN, len(result.rejected_items)):,} more")
    typer.echo(
        f"{result.sent:,} events {verb} {topic}, {result.already_retried:,} skipped (retried before), "
        f"{result.rejected:,} invalid or not found"
    )
    if result.late:
        typer.echo(
            f"{result.late:,} of these events are late: their attribution window has passed in their partition. Such a "
            "click finds its page closed, or not at all, and counts as late or orphan; such a page is closed at once, "
            "without the clicks that came before it. What was trained on already does not change"
        )


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    with progress_bar(title, 1.0) as bar:
        yield lambda done, total: bar.update(done / total if total else 1.0)
        bar.update(1.0)
