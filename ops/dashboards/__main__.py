"""`python -m prectr.ops.dashboards`: writes the dashboards as Grafana JSON, or checks that they are up to date."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.ops.dashboards import DASHBOARDS

HERE: Final = Path(__file__).parent


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to.", show_default="that of this file")] = HERE,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if a file is out of date.")
    ] = False,
) -> None:
    """Write the JSON file of every dashboard from its code.

    Example: python -m prectr.ops.dashboards --check
    """
    try:
        from prectr.ops.dashboards.grafana import dashboard_json  # noqa: PLC0415 (needed for development only)
    except ModuleNotFoundError as error:
        sys.exit(f"writing dashboards needs grafana-foundation-sdk ({error}): pip install -e '.[dev]', or make setup")
    if not out.is_dir():
        print(f"--out {out} is not a folder: create it first", file=sys.stderr)
        raise typer.Exit(2)
    stale = 0
    for dashboard in DASHBOARDS:
        path = out / f"{dashboard.name}.json"
        text = dashboard_json(dashboard)
        if check:
            if not path.exists() or path.read_text() != text:
                print(f"{path} is out of date: run python -m prectr.ops.dashboards", file=sys.stderr)
                stale += 1
        else:
            path.write_text(text)
            print(f"{path}: {len(dashboard.panels)} panels")
    if stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
