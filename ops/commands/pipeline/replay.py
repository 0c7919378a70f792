"""`prectr replay`: turns a log into training examples, a ranker trained on them in order, and a report."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import (
    CheckpointInterval,
    ConfigFile,
    FileOrder,
    JsonFile,
    MetricsPort,
    OrderChoice,
    TrainingOptions,
)
from prectr.ops.json_file import write_json
from prectr.ops.settings.loader import load_settings
from prectr.ops.settings.option import setting_option
from prectr.state.errors import PrectrError
from prectr.stream.output_format import check_suffix
from prectr.stream.readers import check_log


@with_option_groups
def replay(
    files: Annotated[list[str], typer.Argument(help="Logs: files, folders or patterns.")],
    run_dir: Annotated[Path, typer.Option(help="Folder for state, checkpoints and the report.")],
    training: TrainingOptions,
    without: Annotated[str | None, setting_option("without", "Comma-separated, such as incentive,aggregates.")] = None,
    partitions: Annotated[str | None, setting_option("partitions")] = None,
    order: FileOrder = OrderChoice.TIME,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Train no model; with --examples, write examples only.")
    ] = False,
    no_flush: Annotated[
        bool,
        typer.Option("--no-flush", help="Keep pending pages at the end, to continue later with more files."),
    ] = False,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Also write the training examples, with each model's scores, to this file: "
            ".jsonl, .jsonl.gz, .jsonl.zst or .parquet."
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Delete the run in --run-dir and start over.")] = False,
    checkpoint_interval: CheckpointInterval = 30.0,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file of `prectr simulate --truth`: also report the quality of the true probabilities."
        ),
    ] = None,
    metrics_port: MetricsPort = None,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Replay a log: join clicks, add aggregates, score each page before training on it, and write a report.

    After a crash, rerun the same command: it resumes from the last checkpoint and gives bit-identical results.

    Example: prectr replay log.jsonl.gz --run-dir run --model prectr-v2,lr
    """
    # Before anything that takes seconds to import: most mistakes are in what is given.
    if examples is not None:
        check_suffix(examples)
    settings = load_settings(config, training.settings() | {"without": without, "partitions": partitions})
    check_log(files)

    from prectr.ops.limits.check import check_limits  # noqa: PLC0415
    from prectr.ops.limits.needs import STAGES, replay_needs  # noqa: PLC0415
    from prectr.ops.report.log.health import nothing_valid  # noqa: PLC0415
    from prectr.ops.report.terminal import print_report  # noqa: PLC0415 (--help needs neither matplotlib nor rich)
    from prectr.ops.training.batch_span import settle_batch_span  # noqa: PLC0415 (it reads the log)
    from prectr.ops.training.replay import run_replay  # noqa: PLC0415 (torch takes seconds to import)
    from prectr.stream.replay.runner import RunnerOptions  # noqa: PLC0415

    check_limits(replay_needs(settings.pipeline.partitions * STAGES, {"run folder": run_dir}))
    models = [] if no_train else training.models or [settings.trainer.model]
    report, page = run_replay(
        files,
        run_dir,
        settle_batch_span(settings, files, run_dir, models, restart=restart),
        models=models,
        truth=truth,
        flush=not no_flush,
        options=RunnerOptions(
            order=order.value, examples=examples, restart=restart, checkpoint_interval=checkpoint_interval
        ),
        metrics_port=metrics_port,
    )
    write_json(json, report)
    print_report(report, page)
    if problem := nothing_valid(report.outcomes):
        raise PrectrError(f"{problem}; the dead letters are in {run_dir / 'dead-letters.jsonl'}")
