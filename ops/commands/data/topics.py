"""`prectr topics`: creates and checks the topics of the live system."""

from typing import Annotated

import typer

from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import JsonFile, KafkaOptions, SnapshotCheckOptions
from prectr.ops.json_file import write_json

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Create and check the topics of the live system.\n\n"
    "Example: prectr topics create --bootstrap localhost:9092 --partitions 4",
)


@app.callback()
def topics() -> None:
    """Create and check the topics of the live system.

    Example: prectr topics create --bootstrap localhost:9092 --partitions 4
    """


@app.command()
@with_option_groups
def create(
    kafka: KafkaOptions,
    partitions: Annotated[
        int,
        typer.Option(min=1, max=128, help="Partitions per topic, and tasks per stage; cannot be changed later."),
    ] = 4,
    replication: Annotated[
        int, typer.Option(min=1, max=32_767, help="Replication factor; use 3 on three or more brokers.")
    ] = 1,
    json: JsonFile = None,
) -> None:
    """Create the topics that do not exist yet; safe to repeat.

    Example: prectr topics create --bootstrap localhost:9092 --partitions 4
    """
    from prectr.stream.kafka.client.topics import create_topics, describe_system  # noqa: PLC0415

    topics, connection = kafka.topics(), kafka.connection()
    created = create_topics(connection, topics, partitions, replication)
    described = describe_system(connection, topics).topics
    write_json(
        json,
        [
            {
                "topic": name,
                "created": name in created,
                "partitions": topic.partitions,
                "replication": topic.min_replicas,
            }
            for name, topic in described.items()
        ],
    )
    for name, topic in described.items():
        state = "created" if name in created else "exists"
        typer.echo(f"{name}: {state}, {topic.partitions} partitions, replication factor {topic.min_replicas}")


@app.command()
@with_option_groups
def check(kafka: KafkaOptions, snapshots: SnapshotCheckOptions, json: JsonFile = None) -> None:
    """Check topics and brokers and suggest fixes: one finding per line. Exit code 1 if one is an error.

    Example: prectr topics check --bootstrap localhost:9092 --snapshots /mnt/snapshots
    """
    from prectr.ops.doctor.broker.topic_checks import check_system  # noqa: PLC0415
    from prectr.ops.doctor.findings import print_findings  # noqa: PLC0415

    findings = check_system(kafka.connection(), kafka.topics(), snapshots.target())
    print_findings(findings, f"Topics and settings of {kafka.bootstrap}", json)
