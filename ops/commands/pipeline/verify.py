"""`prectr verify`: checks that a run accounts for every event and that its offsets are consistent."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.options import JsonFile
from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.json_file import write_json
from prectr.ops.report.check import check_report
from prectr.state.errors import PrectrError, Remedy
from prectr.stream.replay.verify import verify as check_run


def verify(run_dir: Annotated[Path, typer.Option(help="Folder of a replay.")], json: JsonFile = None) -> None:
    """Check conservation of events and the offsets in the newest checkpoint of a run; exit code 1 if a check fails.

    Example: prectr verify --run-dir run
    """
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    checks = check_run(run_dir) + check_report(run_dir)
    write_json(json, checks)
    table = Table(
        "", "check", "details", title=escape(f"{printable(str(run_dir))}: newest checkpoint"), title_justify="left"
    )
    for check in checks:
        table.add_row("ok" if check.holds else "[bold red]FAILED[/]", escape(check.name), escape(check.detail))
    stdout_console().print(table)
    failed = [check for check in checks if not check.holds]
    if failed:
        raise PrectrError(
            f"{len(failed)} of {len(checks)} checks failed, first {failed[0].name}: {failed[0].detail}. "
            "Please report it",
            Remedy.RESTART,
        )
