"""`prectr state`: a look into what a run knows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.state.aggregates import LEVELS
from prectr.stream.serving.query_lookup import QueryLookup, look_up_query

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help='Look into the state of a run.\n\nExample: prectr state show "usb cable" --run-dir run',
)


@app.callback()
def state() -> None:
    """Look into the state of a run.

    Example: prectr state show "usb cable" --run-dir run
    """


@app.command()
def show(
    query: Annotated[str, typer.Argument(help="A query, as a user would type it.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of a replay.")],
    json: Annotated[Path | None, typer.Option(help="Write the entry to this file, for a program.")] = None,
) -> None:
    """Show what a run knows of a query: its impressions and clicks by relevance level, and its last clicks.

    Example: prectr state show "usb cable" --run-dir run
    """
    found = look_up_query(run_dir, query)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    _print(found)


def _print(found: QueryLookup) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    table = Table(
        title=f"{escape(found.query)} (partition {found.partition}, last page closed {_time(found.updated_at)})"
    )
    for column in ("level", "impressions", "clicks", "click rate", "impressions, decayed", "clicks, decayed", "rate"):
        table.add_column(column, justify="right")
    for level in LEVELS:
        shown, clicked = found.totals[level - 1], found.totals[level + 3]
        shown_lately, clicked_lately = found.decayed_sums[level - 1], found.decayed_sums[level + 3]
        table.add_row(
            str(level),
            f"{shown:,}",
            f"{clicked:,}",
            _rate(clicked, shown),
            f"{shown_lately:,.1f}",
            f"{clicked_lately:,.1f}",
            _rate(clicked_lately, shown_lately),
        )
    console.print(table)
    if found.unapplied_pages:
        console.print(
            f"{found.unapplied_pages:,} more pages have closed ({sum(found.unapplied_counts[:4]):,} impressions, "
            f"{sum(found.unapplied_counts[4:]):,} clicks); the next page of the query counts them in."
        )
    if found.last_clicks:
        console.print("Last clicks, newest first:")
    for click in reversed(found.last_clicks[-10:]):
        about = ", ".join(part for part in (click.category, click.brand) if part)
        console.print(
            f"  {_time(click.ts)}  {click.item_id}  level {click.level}  {about}", highlight=False, markup=False
        )


def _rate(clicks: float, impressions: float) -> str:
    return f"{clicks / impressions:.4f}" if impressions else "–"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
