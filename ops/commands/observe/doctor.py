"""`prectr doctor`: looks a live system over."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, GroupPrefix, TopicPrefix, connection


def doctor(
    bootstrap: Bootstrap,
    state_dir: Annotated[
        Path | None, typer.Option(help="State folder of a stream process, or of all that `prectr run` starts.")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the trainer.")] = None,
    snapshots: Annotated[str | None, typer.Option(help="Where `prectr stream --snapshots` keeps them.")] = None,
    snapshot_interval: Annotated[float, typer.Option(min=1, help="Seconds between two snapshots.")] = 60.0,
    topic_prefix: TopicPrefix = "",
    group_prefix: GroupPrefix = "prectr-",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Annotated[Path | None, typer.Option(help="Write the findings to this file, for a program.")] = None,
) -> None:
    """Look the live system over: a line each, with what to do. Exit code 1 where one is an error.

    Only reads, so it can be called at any time, whatever is running.

    Example: prectr doctor --bootstrap localhost:9092 --run-dir live --state-dir live/state
    """
    from prectr.ops.doctor import Deployment, run_checks  # noqa: PLC0415
    from prectr.ops.doctor.findings import print_findings  # noqa: PLC0415
    from prectr.ops.doctor.topic_checks import SnapshotTarget  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415

    deployment = Deployment(
        connection=connection(bootstrap, client_config, connect_timeout),
        topics=Topics(topic_prefix),
        group_prefix=group_prefix,
        state_dir=state_dir,
        run_dir=run_dir,
        snapshots=None if snapshots is None else SnapshotTarget(snapshots, snapshot_interval),
    )
    print_findings(run_checks(deployment), f"The live system on {bootstrap}", json)
