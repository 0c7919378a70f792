"""`prectr replay`: a log goes in; examples, a ranker that learned from them in order, and a report come out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from prectr.ops.settings.loader import load_settings

if TYPE_CHECKING:
    from prectr.ops.report import Report

_FILE_WIDTH: Final = 120
"""Columns where the output is no terminal: wide enough for the table of models."""


def replay(
    files: Annotated[list[str], typer.Argument(help="Logs: files, directories or patterns, read in this order.")],
    run_dir: Annotated[Path, typer.Option(help="Folder for state, checkpoints and the report.")],
    model: Annotated[
        str | None,
        typer.Option(help="lr, dnn, wide-deep, wide-deep+, prectr or prectr-v2; several with commas share a pass."),
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="Parts of prectr or prectr-v2 to switch off, such as incentive,aggregates.")
    ] = None,
    partitions: Annotated[int | None, typer.Option(help="Tasks of each stage; part of the result.")] = None,
    batch_pages: Annotated[int | None, typer.Option(help="Pages a training batch.")] = None,
    batch_span: Annotated[
        str | None, typer.Option(help="Event time a training batch spans, such as 60s or 1d.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights at the start.")] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="Only make examples.")] = False,
    no_flush: Annotated[
        bool, typer.Option("--no-flush", help="The log goes on: leave open pages open, to go on with further files.")
    ] = False,
    examples: Annotated[Path | None, typer.Option(help="Write the examples to this file, .jsonl or .jsonl.gz.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start over, whatever is in the run folder.")] = False,
    checkpoint_interval: Annotated[
        float, typer.Option(min=0, help="Seconds between the cuts that a crash goes back to; 0: after every step.")
    ] = 30.0,
    truth: Annotated[
        Path | None, typer.Option(help="Of a simulated log: show the quality of its true click probabilities too.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve metrics to Prometheus on this port meanwhile.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too, for a program.")] = None,
) -> None:
    """Replay a log of pages and clicks: join, aggregate, train on every page after scoring it, and report.

    After a crash the same command goes on where the last cut was, and ends with the same result to the last bit.

    Example: prectr replay log.jsonl.gz --run-dir run --model wide-deep+ --batch-span 1d
    """
    from prectr.ops.training.replay import run_replay  # noqa: PLC0415 (torch takes seconds to import, and --help needs none)

    models = [name.strip() for name in model.split(",") if name.strip()] if model is not None else []
    settings = load_settings(
        config,
        {
            "model": models[0] if models else None,
            "without": without,
            "partitions": partitions,
            "batch_pages": batch_pages,
            "batch_span": batch_span,
            "seed": seed,
        },
    )
    report, page = run_replay(
        files,
        run_dir,
        settings,
        models=[] if no_train else models or [settings.trainer.model],
        truth=truth,
        flush=not no_flush,
        examples=examples,
        restart=restart,
        checkpoint_interval=checkpoint_interval,
        metrics_port=metrics_port,
    )
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    print_report(report, page)


def print_report(report: "Report", page: Path) -> None:
    """Print the quality of the models, where the records ended, and where the report is."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    if report.models:
        table = Table(title="Quality, each page scored before it was learned from")
        for column in ("model", "AUC", "GAUC", "log loss", "norm. entropy", "calibration", "AUC new", "low", "active"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for row in report.models:
            parts = (row.segments.new, row.segments.low, row.segments.active)
            stats = (row.auc, row.gauc, row.log_loss, row.normalized_entropy, row.calibration)
            table.add_row(row.model, *(_score(value) for value in (*stats, *(part.auc for part in parts))))
        console.print(table)
    impressions, clicks = report.outcomes.pages, report.outcomes.clicks
    console.print(
        f"{report.pages:,} pages, {report.clicks:,} clicks joined; of {impressions.received:,} pages in "
        f"{impressions.open:,} are open, {impressions.duplicate:,} came twice; of {clicks.received:,} clicks in "
        f"{clicks.late:,} came late, {clicks.orphan:,} have no page; "
        f"{impressions.dead_letter + clicks.dead_letter + report.outcomes.unreadable:,} dead letters. "
        f"{report.seconds:.1f} s"
    )
    console.print(f"report: {page}", soft_wrap=True, highlight=False)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
