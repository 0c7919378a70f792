"""`prectr state`: shows the state of a run, and restores the offsets that belong to the state of a live system."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import JsonFile, SystemOptions
from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.json_file import write_json
from prectr.ops.report.numbers import timestamp
from prectr.state.aggregates import LEVELS
from prectr.state.setting import format_duration
from prectr.stream.serving.query_lookup import QueryLookup, look_up_query

if TYPE_CHECKING:
    from prectr.stream.kafka.recovery.offset_recovery import TaskOffset

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help='Show the state of a run, or restore the offsets of a live system.\n\nExample: prectr state show "usb cable" '
    "--run-dir run",
)


@app.callback()
def state() -> None:
    """Show the state of a run, or restore the offsets of a live system.

    Example: prectr state show "usb cable" --run-dir run
    """


@app.command()
def show(
    query: Annotated[str, typer.Argument(help="Raw query text.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of a replay.")],
    json: JsonFile = None,
) -> None:
    """Show the aggregates of a query: impressions and clicks by relevance level, and its last clicks.

    Example: prectr state show "usb cable" --run-dir run
    """
    found = look_up_query(run_dir, query)
    write_json(json, found)
    _print(found)


@app.command("restore-offsets")
@with_option_groups
def restore_offsets(
    system: SystemOptions,
    state_dir: Annotated[
        list[Path], typer.Option(help="State folder of a stream worker, or of `prectr run`; repeat it for each.")
    ],
    *,
    snapshots: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the workers keep snapshots.", show_default=False)
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Commit the offsets; else they are only shown.")] = False,
    json: JsonFile = None,
) -> None:
    """Restore consumer group offsets that another program has reset, or that have expired, to fit the state.

    The offsets are found from the state folders and from what the tasks have written. All stream workers must be
    stopped. Without --execute nothing changes.

    Example: prectr state restore-offsets --bootstrap localhost:9092 --state-dir live/state

    Example: prectr state restore-offsets --bootstrap localhost:9092 --state-dir live/state --execute
    """
    from prectr.state.snapshots.storage import SnapshotStorage  # noqa: PLC0415
    from prectr.stream.kafka.recovery.offset_recovery import OffsetRecovery, RecoverySettings  # noqa: PLC0415

    recovery = OffsetRecovery(
        RecoverySettings(
            connection=system.connection(),
            topics=system.topics(),
            group_prefix=system.group_prefix,
            state_dirs=state_dir,
            snapshots=None if snapshots is None else SnapshotStorage(snapshots),
        )
    )
    with progress_bar("restore offsets", 0) as bar:
        plan = recovery.plan(lambda text: bar.update(0, text))
    write_json(json, plan)
    _print_plan(plan)
    changes = [task for task in plan if task.offset is not None]
    if not changes:
        typer.echo("every offset is this system's own: there is nothing to restore")
    elif execute:
        recovery.execute(plan)
        typer.echo(f"{len(changes)} offsets are committed: start the stream workers again")
    else:
        typer.echo("nothing was changed: add --execute to commit these offsets")


def _print_plan(plan: "Sequence[TaskOffset]") -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table()
    for column in ("task", "committed", "to commit", "from"):
        table.add_column(column, overflow="fold")
    for task in plan:
        table.add_row(
            task.task, printable(task.found), "" if task.offset is None else f"{task.offset:,}", printable(task.source)
        )
    stdout_console().print(table)


def _print(found: QueryLookup) -> None:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = stdout_console()
    last_close = timestamp(found.updated_at)
    table = Table(
        title=f"{escape(printable(found.query))} (partition {found.partition}, last page closed {last_close})"
    )
    for column in ("level", "half-life", "impressions", "clicks", "click rate"):
        table.add_column(column, justify="right")
    for level in LEVELS:
        impressions, clicks = found.totals[level - 1], found.totals[level + 3]
        table.add_row(str(level), "all", f"{impressions:,}", f"{clicks:,}", _rate(clicks, impressions))
        for half_life, sums in zip(found.half_lives, found.decayed_sums, strict=True):
            shown, clicked = sums[level - 1], sums[level + 3]
            table.add_row("", format_duration(half_life), f"{shown:,.1f}", f"{clicked:,.1f}", _rate(clicked, shown))
    console.print(table)
    if found.unapplied_pages:
        console.print(
            f"{found.unapplied_pages:,} closed pages ({sum(found.unapplied_counts[:4]):,} impressions, "
            f"{sum(found.unapplied_counts[4:]):,} clicks) are not applied yet; the query's next page applies them."
        )
    if found.last_clicks:
        console.print("Last clicks, newest first:")
    for click in reversed(found.last_clicks[-10:]):
        groups = ", ".join(part for part in (click.category, click.brand) if part)
        line = printable(f"{click.item_id}  level {click.level}  {groups}")
        console.print(f"  {timestamp(click.ts)}  {line}", highlight=False, markup=False)


def _rate(clicks: float, impressions: float) -> str:
    return f"{clicks / impressions:.4f}" if impressions else "–"
