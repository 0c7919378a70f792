"""`prectr check`: validates a log before a replay."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.options import ConfigFile, JsonFile
from prectr.ops.json_file import write_json
from prectr.ops.settings.loader import load_settings
from prectr.ops.settings.option import setting_option
from prectr.state.errors import UsageError


def check(
    files: Annotated[list[str], typer.Argument(help="Logs: files, folders or patterns, as for a replay.")],
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated: estimate the training time of these; default: that of setting model."),
    ] = None,
    no_estimate: Annotated[
        bool, typer.Option("--no-estimate", help="Do not measure how long a replay will take.")
    ] = False,
    attribution_window: Annotated[str | None, setting_option("attribution_window")] = None,
    partitions: Annotated[str | None, setting_option("partitions")] = None,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Validate a log before a replay.

    Tells which events are valid and why others are not, units and order of time, clicks that find their page by
    attribution window, visitors, positions, levels, features, and how long a replay will take. Exit code 1 if the
    log is not ready to replay, with what to do about it. A log of more than some 350,000 pages is partly sampled.

    Example: prectr check logs/ --models prectr-v2,lr --json check.json
    """
    from prectr.ops.check.screen import print_check  # noqa: PLC0415 (--help needs neither numpy nor rich)
    from prectr.stream.check import survey_log  # noqa: PLC0415

    if models is not None and no_estimate:
        raise UsageError("--models belongs to the estimate: leave out --no-estimate")
    settings = load_settings(config, {"attribution_window": attribution_window, "partitions": partitions})
    names = [name.strip() for name in (models or settings.trainer.model).split(",") if name.strip()]
    for name in names:
        load_settings(config, {"model": name})
    with progress_bar("check", 1.0) as bar:
        report = survey_log(
            files,
            settings.pipeline,
            batch_pages=settings.trainer.batch_pages,
            batch_span=settings.trainer.batch_span,
            progress=lambda done, total: bar.update(done / total if total else 1.0),
        )
    if not no_estimate and report.validity.pages > report.validity.empty_pages:
        from prectr.ops.check.estimate import estimate_replay  # noqa: PLC0415 (torch takes seconds to import)
        from prectr.ops.training.batch_span import settle_batch_span  # noqa: PLC0415

        # As the replay would: a sparse log is trained on in larger batches.
        settings = settle_batch_span(settings, files, Path(), names, restart=True)
        report.estimate = estimate_replay(files, settings, names, report)
    write_json(json, report)
    print_check(report, settings.pipeline)
    if not report.ready:
        raise typer.Exit(1)
