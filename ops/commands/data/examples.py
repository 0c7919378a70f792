"""`prectr examples`: what is committed in `training-examples`, as a file."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.kafka_options import Bootstrap, ClientConfig, ConnectTimeout, TopicPrefix, connection
from prectr.ops.cli.signals import stop_signals


def examples(
    bootstrap: Bootstrap,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .jsonl.gz.")],
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop where the topic ends now.")] = False,
    topic_prefix: TopicPrefix = "",
    client_config: ClientConfig = None,
    connect_timeout: ConnectTimeout = 5.0,
    json: Annotated[Path | None, typer.Option(help="Write digests and counts to this file.")] = None,
) -> None:
    """Write the committed training examples in the one order, as `replay --examples` does.

    Example: prectr examples --bootstrap localhost:9092 --until-end --out examples.jsonl.gz
    """
    from prectr.stream.kafka.client.topics import Topics  # noqa: PLC0415
    from prectr.stream.kafka.io.sink_runner import write_examples  # noqa: PLC0415

    with progress_bar("examples", 0) as bar, stop_signals() as stop:
        digest = write_examples(
            connection(bootstrap, client_config, connect_timeout),
            Topics(topic_prefix),
            out,
            until_end=until_end,
            stop=stop,
            progress=lambda pages: bar.update(pages, f"{pages:,} pages"),
        )
    if json is not None:
        json.write_bytes(msgspec.json.encode(digest.state()) + b"\n")
    typer.echo(f"{out}: {digest.pages:,} pages, {digest.clicks:,} clicks, examples_sha256 {digest.examples.hex()}")
