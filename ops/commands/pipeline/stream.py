"""`prectr stream`: one process of the live system's two stages."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, GroupPrefix, TopicPrefix, connection
from prectr.ops.cli.metrics_options import MetricsAddress, MetricsPort, optional_exporter
from prectr.ops.cli.signals import stop_signals
from prectr.ops.settings.loader import load_settings
from prectr.state.errors import UsageError
from prectr.stream.events.lexical_labeller import LexicalLabeller

if TYPE_CHECKING:
    from prectr.stream.kafka.tasks.task_status import TaskStatus

_STAGES = ("join", "aggregate")


def stream(
    bootstrap: Bootstrap,
    state_dir: Annotated[Path, typer.Option(help="Folder for this process's state; one a process.")],
    stages: Annotated[str, typer.Option(help="Stages to run here, with commas.")] = "join,aggregate",
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when all that is there now has gone through.")
    ] = False,
    flush: Annotated[
        bool, typer.Option("--flush", help="With --until-end: the log has ended for good, close every open page.")
    ] = False,
    session_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which another process takes over from a dead one.")
    ] = 10.0,
    idle_timeout: Annotated[
        float,
        typer.Option(min=5, help="Seconds without input after which nobody waits for a partition's open pages."),
    ] = 60.0,
    snapshots: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where to keep snapshots of the state: a folder, or what fsspec knows (s3://...). Without it, a lost "
            "state folder is rebuilt from the log.",
            show_default=False,
        ),
    ] = None,
    snapshot_interval: Annotated[float, typer.Option(min=0.1, help="Seconds between snapshots.")] = 60.0,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = None,
    topic_prefix: TopicPrefix = "",
    group_prefix: GroupPrefix = "prectr-",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
) -> None:
    """Join clicks to pages and add the aggregates, exactly once, from search-events to training-examples.

    Start as many processes as there are partitions; they share the work, and take over from one that dies.

    Example: prectr stream --bootstrap localhost:9092 --state-dir state-1
    """
    from prectr.ops.metrics.stream import stream_metrics  # noqa: PLC0415
    from prectr.state.snapshot_storage import SnapshotStorage  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics, check_topics  # noqa: PLC0415
    from prectr.stream.kafka.tasks.task_context import SnapshotSettings  # noqa: PLC0415
    from prectr.stream.kafka.tasks.task_manager import StreamSettings  # noqa: PLC0415
    from prectr.stream.kafka.tasks.worker import run_stream  # noqa: PLC0415

    if flush and not until_end:
        raise UsageError("--flush goes with --until-end: a log that goes on has no last page")
    selected = [name.strip() for name in stages.split(",") if name.strip()]
    if not selected or set(selected) - set(_STAGES):
        raise UsageError(f"--stages {stages}: there are {', '.join(_STAGES)}")
    exporter = optional_exporter(stream_metrics, metrics_port, metrics_address)
    location = None if snapshots is None else SnapshotStorage(snapshots)
    if location is not None:
        location.check_access()
    broker, names = connection(bootstrap, client_config, connect_timeout), Topics(topic_prefix)
    pipeline = load_settings(config).pipeline
    pipeline = dataclasses.replace(pipeline, partitions=check_topics(broker, names))
    settings = StreamSettings(
        connection=broker,
        topics=names,
        group_prefix=group_prefix,
        config=pipeline,
        state_dir=state_dir,
        stages=selected,
        session_timeout=session_timeout,
        idle_timeout=idle_timeout,
        snapshots=None if location is None else SnapshotSettings(location, snapshot_interval),
    )
    with exporter as metrics, progress_bar("stream", 0) as bar, stop_signals() as stop:

        def progress(tasks: Sequence["TaskStatus"]) -> None:
            if metrics is not None:
                metrics.update(tasks)
            pages = sum(task.emitted for task in tasks if task.stage == "aggregate")
            remaining = sum(task.restore_remaining for task in tasks)
            restoring = f", {remaining:,} records to take again" if remaining else ""
            bar.update(pages, f"{pages:,} examples from {len(tasks)} tasks{restoring}")

        run_stream(settings, LexicalLabeller(), until_end=until_end, flush=flush, stop=stop, progress=progress)
