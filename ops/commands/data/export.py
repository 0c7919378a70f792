"""`prectr export`: writes the events of the live system to files."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import JsonFile, KafkaOptions
from prectr.ops.cli.signals import stop_signals
from prectr.ops.json_file import write_json


@with_option_groups
def export(
    kafka: KafkaOptions,
    out: Annotated[Path, typer.Option(help="Folder to write, which must not exist: one .jsonl file a partition.")],
    after: Annotated[
        Path | None, typer.Option(help="Folder of an earlier export: write only the events that came after it.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Write the events that search-events holds now to a folder, as a log for load, check and replay.

    It ends at the events that are there when it begins. Those that are no valid events are written as well. Line breaks
    within an event become blanks.

    Example: prectr export --bootstrap localhost:9092 --out events
    """
    from prectr.stream.kafka.io.event_export import export_events  # noqa: PLC0415

    with progress_bar("export", 1.0) as bar, stop_signals() as stop:
        result = export_events(
            kafka.connection(),
            kafka.topics(),
            out,
            lambda done, total: bar.update(done / total),
            after=after,
            stop=stop,
        )
        bar.update(1.0)
    write_json(json, result)
    typer.echo(f"{out}: {result.events:,} events of {result.topic}")
    if result.removed:
        typer.echo(f"not in it: {result.removed:,} older records, which retention has removed")
    if result.open:
        typer.echo(
            f"not in it: {result.open:,} newer records, behind a transaction that is open; when it has ended, "
            f"prectr export --after {out} writes them"
        )
