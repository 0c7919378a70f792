"""`prectr topics`: the topics of the live system."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, TopicPrefix, connection

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Make and check the topics of the live system.\n\n"
    "Example: prectr topics create --bootstrap localhost:9092 --partitions 4",
)


@app.callback()
def topics() -> None:
    """Make and check the topics of the live system.

    Example: prectr topics create --bootstrap localhost:9092 --partitions 4
    """


@app.command()
def create(
    bootstrap: Bootstrap,
    partitions: Annotated[
        int,
        typer.Option(
            min=1, max=128, help="Partitions of every topic, so tasks of each stage; cannot be changed later."
        ),
    ] = 4,
    replication: Annotated[
        int, typer.Option(min=1, max=32_767, help="Copies of each partition; 3 where there are three brokers.")
    ] = 1,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Annotated[Path | None, typer.Option(help="Write what was made and what was there to this file.")] = None,
) -> None:
    """Make the topics that are not there yet; safe to repeat.

    Example: prectr topics create --bootstrap localhost:9092 --partitions 4
    """
    from prectr.stream.kafka.client.topics import Topics, create_topics, describe_system  # noqa: PLC0415

    names, broker = Topics(topic_prefix), connection(bootstrap, client_config, connect_timeout)
    made = create_topics(broker, names, partitions, replication)
    described = describe_system(broker, names).topics
    if json is not None:
        topics = [
            {"topic": name, "made": name in made, "partitions": topic.partitions, "replication": topic.min_replicas}
            for name, topic in described.items()
        ]
        json.write_bytes(msgspec.json.format(msgspec.json.encode(topics)) + b"\n")
    for name, topic in described.items():
        copies = f"{topic.partitions} partitions, {topic.min_replicas} cop{'y' if topic.min_replicas == 1 else 'ies'} of each"
        typer.echo(f"{name}: {'made' if name in made else 'is there'}, {copies}")


@app.command()
def check(
    bootstrap: Bootstrap,
    snapshots: Annotated[
        str | None, typer.Option(help="Where `prectr stream --snapshots` keeps them; retention is held against it.")
    ] = None,
    snapshot_interval: Annotated[float, typer.Option(min=1, help="Seconds between two snapshots.")] = 60.0,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Annotated[Path | None, typer.Option(help="Write the findings to this file, for a program.")] = None,
) -> None:
    """Check the topics and the broker's settings: a line each, with what to do. Exit code 1 where one is an error.

    Example: prectr topics check --bootstrap localhost:9092 --snapshots /mnt/snapshots
    """
    from prectr.ops.doctor.findings import print_findings  # noqa: PLC0415
    from prectr.ops.doctor.topic_checks import SnapshotTarget, check_system  # noqa: PLC0415
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415

    kept = SnapshotTarget(snapshots, snapshot_interval) if snapshots is not None else None
    findings = check_system(connection(bootstrap, client_config, connect_timeout), Topics(topic_prefix), kept)
    print_findings(findings, f"Topics and settings of {bootstrap}", json)
