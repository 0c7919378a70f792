"""`prectr schema`: prints the JSON Schema of the events."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.stream.events.schema import event_schema_text


def schema(
    out: Annotated[Path | None, typer.Option(help="Write the schema to this file instead of standard output.")] = None,
) -> None:
    """Print the JSON Schema of the events, generated from the decoder.

    Example: prectr schema --out search-events.schema.json
    """
    text = event_schema_text()
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
