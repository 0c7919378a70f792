"""`prectr simulate`: writes a simulated log of result pages and clicks with known click probabilities."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.options import JsonFile
from prectr.ops.json_file import write_json
from prectr.stream.simulator import SimulatedLog, WorldSettings
from prectr.stream.simulator import simulate as write_log


class CatalogueChoice(StrEnum):
    """The product catalogues that can be simulated."""

    synthetic = "synthetic"
    chorus = "chorus"


def simulate(
    pages: Annotated[int, typer.Option(help="Result pages to write.")],
    out: Annotated[Path, typer.Option(help="Log file to write, .jsonl or .jsonl.gz; events in order of arrival.")],
    seed: Annotated[int, typer.Option(help="Seed; the same seed and options give the same bytes.")] = 0,
    catalogue: Annotated[
        CatalogueChoice, typer.Option(help="synthetic, or chorus: real products and queries, graded by people.")
    ] = CatalogueChoice.synthetic,
    truth: Annotated[
        Path | None, typer.Option(help="Also write the true click probabilities, to this Parquet file.")
    ] = None,
    days: Annotated[float, typer.Option(help="Days of event time that the log spans.")] = 14.0,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift", help="Concept drift: change the preferences of 30 % of the queries halfway through the log."
        ),
    ] = False,
    queries: Annotated[int | None, typer.Option(help="Queries of the synthetic catalogue; default 2000.")] = None,
    items: Annotated[int | None, typer.Option(help="Items of the synthetic catalogue; default 20000.")] = None,
    users: Annotated[int | None, typer.Option(help="Number of users; default pages / 2.4.")] = None,
    json: JsonFile = None,
) -> None:
    """Write a simulated search log and, with --truth, its true click probabilities.

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
    write_json(json, log)
    typer.echo(_summary(out, log, time.monotonic() - start))
    if truth is not None:
        typer.echo(f"truth: {truth}")


def _summary(out: Path, log: SimulatedLog, seconds: float) -> str:
    return (
        f"{out}: {log.pages:,} pages, {log.impressions:,} impressions, {log.clicks:,} clicks"
        f" ({log.clicks_beyond_window:,} after the attribution window), {log.duplicated_clicks:,} duplicate clicks,"
        f" {log.unknown_page_clicks:,} clicks on unknown pages, {log.malformed_events:,} invalid events;"
        f" {log.seconds_of_log / 86400:.1f} days of log, written in {seconds:.1f} s"
    )
