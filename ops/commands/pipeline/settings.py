"""`prectr settings`: every setting with its value, and where the value came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.ops.cli.options import ConfigFile, JsonFile
from prectr.ops.cli.output import stdout_console
from prectr.ops.json_file import write_json
from prectr.ops.settings.fields import FIELDS
from prectr.ops.settings.loader import load_settings
from prectr.ops.settings.option import with_setting_options
from prectr.ops.settings.reference import SettingRow, markdown_text, setting_rows, toml_text, value_text

_FILE_WIDTH: Final = 200
"""Columns where the output is not a terminal: wide enough for the table."""


@with_setting_options(FIELDS)
def settings(
    overrides: Mapping[str, object],
    config: ConfigFile = None,
    toml: Annotated[
        Path | None, typer.Option(help="Write every setting with its value to this file: commented TOML for --config.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the reference of all settings to this file.")] = None,
    json: JsonFile = None,
) -> None:
    """Print every setting: value, default, allowed values, unit, meaning, and where the value came from.

    Precedence: flag, environment variable (such as PRECTR_BATCH_PAGES=32), TOML file, default.

    Example: prectr settings --batch-span 1d --toml prectr.toml
    """
    loaded = load_settings(config, overrides)
    rows = setting_rows(loaded)
    write_json(json, {"settings": rows})
    if toml is not None:
        toml.write_text(toml_text(loaded), encoding="utf-8")
    if markdown is not None:
        markdown.write_text(markdown_text(), encoding="utf-8")
    if toml is None and markdown is None:
        _print_table(rows)


def _print_table(rows: Sequence[SettingRow]) -> None:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = stdout_console(_FILE_WIDTH)
    table = Table()
    for column in ("setting", "value", "default", "allowed", "unit", "from", "meaning"):
        table.add_column(column, overflow="fold")
    for row in rows:
        value, default = (value_text(row.name, each) or "none" for each in (row.value, row.default))
        cells = (row.name, value, default, row.allowed, row.unit or "", row.source, row.meaning)
        table.add_row(*(escape(cell) for cell in cells), style="bold" if row.source != "default" else None)
    console.print(table)
