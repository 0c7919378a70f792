"""`prectr verify`: is every event of a run accounted for, and is every offset where it should be?"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.report.check import check_report
from prectr.state.errors import PrectrError
from prectr.stream.replay.verify import verify as check_run


def verify(
    run_dir: Annotated[Path, typer.Option(help="Folder of a replay.")],
    json: Annotated[Path | None, typer.Option(help="Write the checks to this file, for a program.")] = None,
) -> None:
    """Check conservation and offsets in the newest checkpoint of a run; exit code 1 where something does not hold.

    Example: prectr verify --run-dir run
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    checks = check_run(run_dir) + check_report(run_dir)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(checks)) + b"\n")
    table = Table("", "check", "figures", title=f"{run_dir}: newest checkpoint", title_justify="left")
    for check in checks:
        table.add_row("ok" if check.holds else "[bold red]FAILED[/]", check.name, check.detail)
    Console().print(table)
    failed = [check for check in checks if not check.holds]
    if failed:
        raise PrectrError(
            f"{len(failed)} of {len(checks)} checks failed, first {failed[0].name}: {failed[0].detail}. "
            "Start the run over with --restart, and please report it"
        )
