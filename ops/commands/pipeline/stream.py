"""`prectr stream`: one process of the live system's stages, join and aggregate."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import ConfigFile, MetricsOptions, StreamEndOptions, StreamOptions, SystemOptions
from prectr.ops.cli.signals import stop_signals
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller

if TYPE_CHECKING:
    from prectr.stream.kafka.tasks.task_context import SnapshotSettings
    from prectr.stream.kafka.tasks.task_status import TaskStatus

_STAGES: Final = ("join", "aggregate")


@with_option_groups
def stream(
    system: SystemOptions,
    state_dir: Annotated[Path, typer.Option(help="Folder for the state of this process; one per process.")],
    *,
    stages: Annotated[str, typer.Option(help="Stages to run in this process, comma-separated.")] = "join,aggregate",
    end: StreamEndOptions,
    options: StreamOptions,
    metrics: MetricsOptions,
    config: ConfigFile = None,
) -> None:
    """Join clicks to pages and add the aggregates, exactly once, from search-events to training-examples.

    Start up to as many processes as there are partitions; they share the partitions and replace one that dies.

    Example: prectr stream --bootstrap localhost:9092 --state-dir state-1
    """
    from prectr.ops.doctor.host.disk import local_path  # noqa: PLC0415
    from prectr.ops.limits.check import check_limits  # noqa: PLC0415
    from prectr.ops.limits.needs import stream_needs  # noqa: PLC0415
    from prectr.ops.live.rejection_log import RejectionLog  # noqa: PLC0415
    from prectr.ops.metrics.broker import unready_without_broker, with_broker_metric  # noqa: PLC0415
    from prectr.ops.metrics.stream import stream_metrics, unready_reason  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import check_topics  # noqa: PLC0415
    from prectr.stream.kafka.tasks.stages import StreamSettings  # noqa: PLC0415
    from prectr.stream.kafka.tasks.worker import run_stream  # noqa: PLC0415

    end.check()
    selected = _parse_stages(stages)
    exporter_context = metrics.exporter(with_broker_metric(stream_metrics), unready_without_broker(unready_reason))
    snapshots = _snapshot_settings(options)
    connection, topics = system.connection(), system.topics()
    pipeline = load_settings(config).pipeline
    settings = StreamSettings(
        connection=connection,
        topics=topics,
        group_prefix=system.group_prefix,
        config=dataclasses.replace(pipeline, partitions=check_topics(connection, topics)),
        state_dir=state_dir,
        stages=selected,
        session_timeout=options.session_timeout,
        idle_timeout=options.idle_timeout,
        snapshots=snapshots,
    )
    folders = {"state folder": state_dir}
    if options.snapshots is not None and (snapshot_folder := local_path(options.snapshots)) is not None:
        folders["snapshots folder"] = snapshot_folder
    check_limits(stream_needs(settings.config.partitions * len(selected), folders))
    with exporter_context as exporter, progress_bar("stream", 0) as bar, stop_signals() as stop:
        rejection_log = RejectionLog()

        def progress(tasks: Sequence["TaskStatus"]) -> None:
            rejection_log.update(tasks)
            if exporter is not None:
                exporter.update(tasks)
            pages = sum(task.emitted for task in tasks if task.stage == "aggregate")
            remaining = sum(task.restore_remaining for task in tasks)
            restoring = f", restoring: {remaining:,} records left" if remaining else ""
            bar.update(pages, f"{pages:,} examples from {len(tasks)} tasks{restoring}")

        run_stream(settings, LexicalLabeller(), until_end=end.until_end, flush=end.flush, stop=stop, progress=progress)


def _parse_stages(stages: str) -> list[str]:
    selected = [name.strip() for name in stages.split(",") if name.strip()]
    if not selected or set(selected) - set(_STAGES):
        raise UsageError(f"--stages {stages}: the stages are {', '.join(_STAGES)}")
    return selected


def _snapshot_settings(options: StreamOptions) -> "SnapshotSettings | None":
    """Where and how often to take snapshots; raises if the location cannot be written."""
    from prectr.state.snapshots.storage import SnapshotStorage  # noqa: PLC0415
    from prectr.stream.kafka.tasks.task_context import SnapshotSettings  # noqa: PLC0415

    if options.snapshots is None:
        return None
    storage = SnapshotStorage(options.snapshots)
    storage.check_access()
    return SnapshotSettings(storage, options.snapshot_interval)
