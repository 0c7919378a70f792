"""`prectr examples`: writes the committed records of `training-examples` to a file."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import JsonFile, KafkaOptions, UntilEnd
from prectr.ops.cli.signals import stop_signals
from prectr.ops.json_file import write_json
from prectr.stream.output_format import check_suffix


@with_option_groups
def examples(
    kafka: KafkaOptions,
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")],
    until_end: UntilEnd = False,
    json: JsonFile = None,
) -> None:
    """Write the committed training examples in event-time order, in the format of `replay --examples`.

    Example: prectr examples --bootstrap localhost:9092 --until-end --out examples.jsonl.gz
    """
    check_suffix(out)

    from prectr.stream.kafka.io.sink_runner import write_examples  # noqa: PLC0415

    with progress_bar("examples", 0) as bar, stop_signals() as stop:
        digest = write_examples(
            kafka.connection(),
            kafka.topics(),
            out,
            until_end=until_end,
            stop=stop,
            progress=lambda pages: bar.update(pages, f"{pages:,} pages"),
        )
    write_json(json, digest.state())
    typer.echo(f"{out}: {digest.pages:,} pages, {digest.clicks:,} clicks, examples_sha256 {digest.examples.hex()}")
