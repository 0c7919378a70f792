"""`prectr topics`: the topics of the live system."""

from typing import Annotated

import typer

from ops.kafka_options import Bootstrap, ClientConfig, TopicPrefix, Wait, connection

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make the topics of the live system.")


@app.callback()
def topics() -> None:
    """Make the topics of the live system.

    Example: prectr topics create --bootstrap localhost:9092 --partitions 4
    """


@app.command()
def create(
    bootstrap: Bootstrap,
    partitions: Annotated[
        int, typer.Option(min=1, max=128, help="Of every topic, so tasks a stage; it cannot change later.")
    ] = 4,
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition.")] = 1,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    wait: Wait = 5.0,
) -> None:
    """Make the topics that are not there yet; safe to repeat.

    Example: prectr topics create --bootstrap localhost:9092 --partitions 4
    """
    from stream.kafka.topics import Topics, create_topics  # noqa: PLC0415

    names = Topics(topic_prefix)
    made = create_topics(connection(bootstrap, client_config, wait), names, partitions, replication)
    for name in names.all:
        typer.echo(f"{name}: {'made' if name in made else 'is there'}, {partitions} partitions")
