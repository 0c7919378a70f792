"""`prectr compare`: compares the models of two runs over the same log."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.options import JsonFile
from prectr.ops.json_file import write_json
from prectr.state.errors import PrectrError


def compare(
    first: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Run folder of the run to compare with it.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Compare only these models of both runs, comma-separated.", show_default=False)
    ] = None,
    json: JsonFile = None,
) -> None:
    """Compare two runs over the same log: the settings that differ, and each metric with paired 95 % intervals.

    Models are compared by name; runs without a common model, each with each. Exit code 1 if the runs have different
    examples (another log, or other settings of the join): their figures are printed without differences.

    Example: prectr compare run-a run-b --model prectr-v2
    """
    from prectr.ops.report.comparison.runs import compare_runs  # noqa: PLC0415
    from prectr.ops.report.comparison.terminal import print_comparison  # noqa: PLC0415 (--help needs no rich tables)

    names = [] if model is None else [name.strip() for name in model.split(",")]
    comparison = compare_runs(first, second, names)
    write_json(json, comparison)
    print_comparison(comparison)
    if not comparison.same_examples:
        raise PrectrError(
            "the runs have different examples (another log, or other settings of the join and the aggregates): "
            "a difference would not be the models'"
        )
