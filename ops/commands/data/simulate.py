"""`prectr simulate`: a log of result pages and clicks from a world whose true click probabilities are known."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.stream.simulator import SimulatedLog, WorldSettings
from prectr.stream.simulator import simulate as write_log


class CatalogueChoice(StrEnum):
    """Which shop is simulated."""

    synthetic = "synthetic"
    chorus = "chorus"


def simulate(
    pages: Annotated[int, typer.Option(help="Result pages to write.")],
    out: Annotated[Path, typer.Option(help="The log, .jsonl or .jsonl.gz; events in the order in which they arrive.")],
    seed: Annotated[int, typer.Option(help="The same seed and numbers give the same bytes.")] = 0,
    catalogue: Annotated[
        CatalogueChoice, typer.Option(help="synthetic, or chorus: real products and queries with human grades.")
    ] = CatalogueChoice.synthetic,
    truth: Annotated[Path | None, typer.Option(help="Write the true click probabilities to this Parquet file.")] = None,
    days: Annotated[float, typer.Option(help="Days of event time that the log spans.")] = 14.0,
    drift: Annotated[
        bool, typer.Option("--drift", help="Change the kind of 30 % of the queries at the middle of the log.")
    ] = False,
    queries: Annotated[int | None, typer.Option(help="Queries of the synthetic catalogue, by default 2000.")] = None,
    items: Annotated[int | None, typer.Option(help="Items of the synthetic catalogue, by default 20000.")] = None,
    users: Annotated[int | None, typer.Option(help="Users who may come, by default pages / 2.4.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write what was simulated to this file, for a program.")] = None,
) -> None:
    """Write a simulated search log, and its truth if asked for.

    Example: prectr simulate --pages 20000 --seed 0 --catalogue chorus --out log.jsonl.gz --truth truth.parquet
    """
    start = time.monotonic()
    settings = WorldSettings(
        pages=pages,
        seed=seed,
        catalogue=catalogue.value,
        days=days,
        drift=drift,
        queries=queries,
        items=items,
        users=users,
    )
    with progress_bar("simulate", pages) as bar:
        log = write_log(
            out,
            settings,
            truth=truth,
            progress=lambda done, _total: bar.update(done, f"{done:,} pages"),
        )
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(log), indent=2) + b"\n")
    typer.echo(_summary(out, log, time.monotonic() - start))
    if truth is not None:
        typer.echo(f"truth: {truth}")


def _summary(out: Path, log: SimulatedLog, seconds: float) -> str:
    return (
        f"{out}: {log.pages:,} pages, {log.impressions:,} impressions, {log.clicks:,} clicks"
        f" ({log.clicks_beyond_window:,} beyond the window), {log.duplicated_clicks:,} clicks sent twice,"
        f" {log.unknown_page_clicks:,} on unknown pages, {log.malformed_events:,} malformed events;"
        f" {log.seconds_of_log / 86400:.1f} days of log, written in {seconds:.1f} s"
    )
