"""Prints the report of a run on the terminal."""

from pathlib import Path
from typing import Final

from rich.table import Table

from prectr.ops.cli.output import EscapingConsole, stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.report.log.health import kind_sentence
from prectr.ops.report.numbers import fixed
from prectr.ops.report.schema import Report

_FILE_WIDTH: Final = 120
"""Columns where the output is not a terminal: wide enough for the table of models."""
_MAX_KINDS: Final = 5
_COLUMNS: Final = ("model", "AUC", "GAUC", "log loss", "norm. entropy", "calibration", "AUC new", "low", "active")


def print_report(report: Report, page: Path) -> None:
    """Print the quality of the models, the outcomes of all records, why records were rejected, and what is wrong.

    The last line says whether all is well.

    Args:
        report: of a replay or a live trainer.
        page: path of `report.html`.
    """
    console = stdout_console(_FILE_WIDTH)
    if report.models:
        console.print(_quality_table(report))
    pages, clicks = report.outcomes.pages, report.outcomes.clicks
    console.print(
        f"{report.pages:,} pages with {report.impressions:,} impressions, {report.clicks:,} clicks joined. "
        f"Pages in: {pages.received:,} ({pages.open:,} still open, {pages.empty:,} empty, "
        f"{pages.duplicate:,} duplicates). "
        f"Clicks in: {clicks.received:,} ({clicks.late:,} late, {clicks.orphan:,} without a page, "
        f"{clicks.other_action:,} other actions). "
        f"Dead letters: {pages.dead_letter + clicks.dead_letter + report.outcomes.unreadable:,}. "
        f"{report.seconds:.1f} s"
    )
    for kind in report.rejections[:_MAX_KINDS]:
        _print_line(console, f"dead letters: {kind_sentence(kind)}")
    if len(report.rejections) > _MAX_KINDS:
        _print_line(console, f"dead letters of further kinds: prectr dlq list --run-dir {printable(str(page.parent))}")
    _print_line(console, f"report: {printable(str(page))}")
    for warning in report.warnings:
        _print_line(console, f"warning: {warning}", "bold")
    if report.warnings:
        number = "1 warning" if len(report.warnings) == 1 else f"{len(report.warnings)} warnings"
        _print_line(console, f"Completed with {number}: treat the figures above with caution")
    else:
        _print_line(console, "OK: every record is accounted for, and clicks were matched to their pages")


def _print_line(console: EscapingConsole, text: str, style: str = "") -> None:
    """Print text that is not markup, not broken into lines."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _quality_table(report: Report) -> Table:
    table = Table(title="Prequential quality: each page was scored before it was trained on")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in report.models:
        segments = (row.segments.new, row.segments.low, row.segments.active)
        stats = (row.auc, row.gauc, row.log_loss, row.normalized_entropy, row.calibration)
        table.add_row(row.model, *(fixed(value) for value in (*stats, *(each.auc for each in segments))))
    return table
