"""`prectr state`: shows the state of a run."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.options import JsonFile
from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.json_file import write_json
from prectr.ops.report.numbers import timestamp
from prectr.state.aggregates import LEVELS
from prectr.state.setting import format_duration
from prectr.stream.serving.query_lookup import QueryLookup, look_up_query

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help='Show the state of a run.\n\nExample: prectr state show "usb cable" --run-dir run',
)


@app.callback()
def state() -> None:
    """Show the state of a run.

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
