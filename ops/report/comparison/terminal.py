"""Prints the comparison of two runs on the terminal."""

import json
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.report.comparison.runs import RunComparison, RunDifference
from prectr.ops.report.comparison.words import METRIC_NAMES, interval_text, signed
from prectr.ops.report.numbers import DASH, fixed

_COLUMNS: Final = ("model", "", "first", "second", "second less first", "95 % over pages", "95 % over users", "better")
_FILE_WIDTH: Final = 120


def print_comparison(comparison: RunComparison) -> None:
    """Print the settings that differ, then each metric of each pair of models with the difference."""
    console = stdout_console(_FILE_WIDTH)
    for side, path in (("first", comparison.first), ("second", comparison.second)):
        console.print(f"{side}: {printable(path)}", markup=False, highlight=False, soft_wrap=True)
    settings = Table("setting", "first", "second", title="Settings that differ", title_justify="left")
    for name, (one, other) in comparison.settings.items():
        settings.add_row(name, escape(_shown(one)), escape(_shown(other)))
    if comparison.settings:
        console.print(settings)
    else:
        console.print("All settings are the same.")
    table = Table(title="Prequential quality", title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("model", "", "better") else "right")
    for row in comparison.differences:
        name = row.first_model if row.first_model == row.second_model else f"{row.first_model}, {row.second_model}"
        table.add_row(
            escape(name),
            METRIC_NAMES[row.metric],
            fixed(row.first.value),
            fixed(row.second.value),
            signed(row.difference),
            interval_text(row.by_page),
            interval_text(row.by_user),
            _better(row),
        )
    console.print(table)


def _better(row: RunDifference) -> str:
    if row.by_user is None or row.by_page is None:
        return DASH
    if min(row.by_user.low, row.by_page.low) <= 0 <= max(row.by_user.high, row.by_page.high):
        return "cannot be told"
    return "second" if (row.by_user.low > 0) != (row.metric == "log_loss") else "first"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
