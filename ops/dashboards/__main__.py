"""`python -m prectr.ops.dashboards`: write the dashboards as Grafana reads them, or check that they are up to date."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from prectr.ops.dashboards import DASHBOARDS

HERE: Final = Path(__file__).parent


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to.", show_default="where this is")] = HERE,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: say which are not up to date, exit code 1 if any is.")
    ] = False,
) -> None:
    """Write overview.json and its siblings from the code beside them.

    Example: python -m prectr.ops.dashboards --check
    """
    try:
        from prectr.ops.dashboards.grafana import dashboard_json  # noqa: PLC0415 (for development alone)
    except ModuleNotFoundError as error:
        sys.exit(
            f"dashboards are written with grafana-foundation-sdk ({error}): pip install -e '.[dev]', or make setup"
        )
    if not out.is_dir():
        print(f"--out {out} is no folder: make it first", file=sys.stderr)
        raise typer.Exit(2)
    stale = 0
    for dashboard in DASHBOARDS:
        path = out / f"{dashboard.name}.json"
        text = dashboard_json(dashboard)
        if check:
            if not path.exists() or path.read_text() != text:
                print(f"{path} is not what the code says: run python -m prectr.ops.dashboards", file=sys.stderr)
                stale += 1
        else:
            path.write_text(text)
            print(f"{path}: {len(dashboard.panels)} panels")
    if stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
