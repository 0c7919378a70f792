"""Writes the two files of the report, each atomically."""

import os
from pathlib import Path

from prectr.ops.json_file import to_json
from prectr.ops.report.html import render
from prectr.ops.report.schema import Report
from prectr.state.errors import PrectrError


def write_report(run_dir: Path, report: Report) -> Path:
    """Write `report.json` and `report.html` into `run_dir`; returns the path of the page.

    Raises:
        PrectrError: a file cannot be written; an earlier report is kept.
    """
    page = run_dir / "report.html"
    write_atomically(run_dir / "report.json", to_json(report))
    write_atomically(page, render(report).encode())
    return page


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file of the report; PrectrError: it cannot be written, and an earlier one is kept."""
    temporary = path.with_name(path.name + ".new")
    # Made anew: what is there may be a link.
    try:
        temporary.unlink(missing_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise PrectrError(
            f"cannot write the report {path}: {error.strerror}; free some space or use another --run-dir"
        ) from error
