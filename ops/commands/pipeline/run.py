"""`prectr run`: the whole live system on one machine."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.child_flags import child_flags
from prectr.ops.cli.console import log_settings
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import (
    CheckpointInterval,
    ConfigFile,
    EndOptions,
    JsonFile,
    StreamOptions,
    SystemOptions,
    TrainingOptions,
)
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import UsageError


@with_option_groups
def run(
    context: typer.Context,
    system: SystemOptions,
    run_dir: Annotated[
        Path, typer.Option(help="Folder for checkpoints, the report and the logs of the processes.")
    ] = Path("live"),
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder for the state of the stages; default: state in --run-dir.")
    ] = None,
    stream_workers: Annotated[int, typer.Option(min=1, max=128, help="Number of stream workers.")] = 1,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, max=128, help="Partitions of topics that do not exist yet; default: those of search-events, else 4."
        ),
    ] = None,
    *,
    training: TrainingOptions,
    end: EndOptions,
    checkpoint_interval: CheckpointInterval = 5.0,
    stream_options: StreamOptions,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_000,
            help="Serve Prometheus metrics: the trainer on this port, the monitor on the next one, the stream workers "
            "on those after; targets.json in --run-dir lists them for Prometheus.",
            show_default=False,
        ),
    ] = None,
    monitor_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Also run a monitor and serve its page on this port.", show_default=False),
    ] = None,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Run the live system on this machine: supervised stream workers and a trainer, with a status display.

    Creates missing topics. Ctrl-C stops all processes with everything committed; rerun the command to resume.

    Example: prectr run --bootstrap localhost:9092 --run-dir live
    """
    end.check()
    if monitor_port is not None and end.until_end:
        raise UsageError("--monitor-port: a monitor does not end; with --until-end run prectr monitor separately")
    from prectr.ops.live.run import LiveRun, report_path, run_live  # noqa: PLC0415

    # Fail on invalid settings here, once, before any process starts.
    load_settings(config, training.settings())
    stream_flags = child_flags("stream", context, excluded=("state_dir", "metrics_port"))
    train_flags = child_flags("train", context, excluded=("run_dir", "metrics_port"))
    monitor_flags = child_flags("monitor", context, excluded=("metrics_port",))
    run_live(
        LiveRun(
            connection=system.connection(),
            topics=system.topics(),
            group_prefix=system.group_prefix,
            state_dir=state_dir or run_dir / "state",
            run_dir=run_dir,
            stream_workers=stream_workers,
            partitions=partitions,
            until_end=end.until_end,
            metrics_port=metrics_port,
            log_flags=log_settings.flags,
            stream_flags=stream_flags,
            train_flags=train_flags,
            monitor_flags=None if monitor_port is None else monitor_flags,
            monitor_port=monitor_port,
        )
    )
    _print_last_report(report_path(run_dir))


def _print_last_report(report: Path) -> None:
    """Print the report of the trainer, if it has written one."""
    from prectr.ops.report import Report  # noqa: PLC0415
    from prectr.ops.report.terminal import print_report  # noqa: PLC0415

    if report.exists():
        print_report(msgspec.json.decode(report.read_bytes(), type=Report), report.with_suffix(".html"))
