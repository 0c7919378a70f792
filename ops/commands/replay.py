"""`prectr replay`: a log goes in; examples, a ranker that learned from them in order, and a report come out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from ops.config import Settings, describe, load_settings
from ops.console import meter
from state.errors import PrectrError, UsageError
from stream.config import PipelineConfig
from stream.labeller import LexicalLabeller
from stream.replay import Replay
from stream.sink import ExampleSink

if TYPE_CHECKING:
    from model.trainer import Trainer
    from ops.metrics import ReplayMetrics
    from ops.report import Report

BUSIEST: Final = 40
"""Queries whose preferences the report shows."""


def replay(
    files: Annotated[list[str], typer.Argument(help="Logs: files, directories or patterns, read in this order.")],
    run_dir: Annotated[Path, typer.Option(help="Folder for state, checkpoints and the report.")],
    model: Annotated[
        str | None, typer.Option(help="lr, dnn, wide-deep or wide-deep+; several with commas share one pass.")
    ] = None,
    without: Annotated[str | None, typer.Option(help="Parts of the model to switch off, with commas.")] = None,
    partitions: Annotated[int | None, typer.Option(help="Tasks a stage.")] = None,
    batch_pages: Annotated[int | None, typer.Option(help="Pages a training batch.")] = None,
    batch_span: Annotated[str | None, typer.Option(help="Event time a training batch spans, such as 60s or 1d.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights at the start.")] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="Only make examples.")] = False,
    no_flush: Annotated[
        bool, typer.Option("--no-flush", help="The log goes on: leave open pages open, to go on with further files.")
    ] = False,
    examples: Annotated[Path | None, typer.Option(help="Write the examples to this file, .jsonl or .jsonl.gz.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start over, whatever is in the run folder.")] = False,
    cut_every: Annotated[
        float, typer.Option(min=0, help="Seconds between the cuts that a crash goes back to; 0: after every step.")
    ] = 30.0,
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
        flush=not no_flush,
        examples=examples,
        restart=restart,
        cut_every=cut_every,
        metrics_port=metrics_port,
    )
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    show(report, page)


def run_replay(
    files: list[str],
    run_dir: Path,
    settings: Settings,
    *,
    models: list[str],
    flush: bool = True,
    examples: Path | None = None,
    restart: bool = False,
    cut_every: float = 30.0,
    metrics_port: int | None = None,
) -> tuple["Report", Path]:
    """Replay `files` into `run_dir` with every one of `models`; returns the report and the path of its page.

    Raises:
        PrectrError: whatever the log, the run folder, the configuration or the disk does not allow.
    """
    from ops.report import write_report  # noqa: PLC0415 (matplotlib is slow to import, and --help needs none)

    if len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)}: a model is named twice")
    trainers = _trainers(settings, models)
    sinks: Mapping[str, ExampleSink] = {f"trainer-{name}": trainer for name, trainer in trainers.items()}
    run = Replay(
        files,
        run_dir,
        settings.pipeline,
        config=_identity(settings, models),
        sinks=sinks,
        label=LexicalLabeller(),
        examples=examples,
        cut_every=cut_every,
        restart=restart,
    )
    try:
        with meter("replay", run.bytes_total) as shown, _exporter(metrics_port, settings.pipeline) as exporter:

            def progress(run: Replay) -> None:
                shown.update(run.bytes_read, _note(run, trainers))
                if exporter is not None:
                    exporter.observe(run, trainers)

            run.run(flush=flush, progress=progress)
        report = _report(run, trainers, settings, models)
        return report, write_report(run_dir, report)
    finally:
        run.close()


def show(report: "Report", page: Path) -> None:
    """Print the quality of the models, where the records ended, and where the report is."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    if report.models:
        table = Table(title="Quality, each page scored before it was learned from")
        for column in ("model", "AUC", "GAUC", "log loss", "norm. entropy", "calibration", "AUC new", "low", "active"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for row in report.models:
            parts = (row.segments.new, row.segments.low, row.segments.active)
            figures = (row.auc, row.gauc, row.log_loss, row.normalized_entropy, row.calibration)
            table.add_row(row.model, *(_figure(value) for value in (*figures, *(part.auc for part in parts))))
        console.print(table)
    impressions, clicks = report.outcomes.impressions, report.outcomes.clicks
    console.print(
        f"{report.pages:,} pages, {report.clicks:,} clicks joined; of {impressions.received:,} pages in "
        f"{impressions.open:,} are open, {impressions.duplicate:,} came twice; of {clicks.received:,} clicks in "
        f"{clicks.late:,} came late, {clicks.orphan:,} have no page; "
        f"{sum(report.dead_letters.values()):,} dead letters. {report.seconds:.1f} s"
    )
    console.print(f"report: {page}", soft_wrap=True, highlight=False)


def _trainers(settings: Settings, models: list[str]) -> dict[str, "Trainer"]:
    if not models:
        return {}
    from model.trainer import Trainer  # noqa: PLC0415 (torch takes seconds to import)

    return {name: Trainer(dataclasses.replace(settings.trainer, model=name)) for name in models}


def _identity(settings: Settings, models: list[str]) -> dict[str, str]:
    """Every setting that decides the result, by name, as text."""
    parts = describe(settings) if models else msgspec.to_builtins(settings.pipeline)
    identity = {name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in parts.items()}
    return identity | {"model": ",".join(models) or "none"}


def _exporter(port: int | None, config: PipelineConfig) -> "_Exporter":
    return _Exporter(port)


class _Exporter:
    """The metrics endpoint of a replay, if one is asked for."""

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._metrics: ReplayMetrics | None = None

    def __enter__(self) -> "_Exporter | None":
        return None

    def __exit__(self, *_: object) -> None:
        pass

    def observe(self, run: Replay, trainers: Mapping[str, "Trainer"]) -> None:
        pass


def _note(run: Replay, trainers: Mapping[str, "Trainer"]) -> str:
    note = f"{run.pages:,} pages"
    for name, trainer in trainers.items():
        auc = trainer.quality.segments()["all"].auc
        if auc is not None:
            note += f", {name} AUC {auc:.4f}"
    return note


def _report(run: Replay, trainers: Mapping[str, "Trainer"], settings: Settings, models: list[str]) -> "Report":
    from ops.report import QueryPreference, RunFacts, build_report, model_report  # noqa: PLC0415

    facts = RunFacts(
        pages=run.pages,
        impressions=run.impressions,
        outcomes=run.outcomes,
        dead_letters=run.dead_letters,
        out_of_order=0,
        busiest_queries=[
            QueryPreference(query=query, impressions=counts[:4], clicks=counts[4:])
            for query, counts in run.busiest.busiest(BUSIEST)
        ],
        examples_sha256=run.examples.hex(),
        aggregates_sha256=run.aggregates.hex(),
        seconds=run.seconds,
        config=describe(settings) | {"model": ",".join(models) or None},
    )
    return build_report(
        facts,
        [model_report(name, trainer.quality.summary(), trainer.weights_sha256()) for name, trainer in trainers.items()],
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
