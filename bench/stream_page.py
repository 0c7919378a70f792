"""What `bench.stream` has found, as tables on the console and as a page."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.table import Table

from bench.stream_driver import Run

_Columns = dict[str, Callable[[Run], str]]


class _Subject(NamedTuple):
    title: str
    columns: _Columns


_SPEED: Final = _Subject(
    "speed",
    {
        "events": lambda run: f"{run.events:,}",
        "wall s": lambda run: f"{run.wall:.1f}",
        "events/s": lambda run: f"{run.per_second:,.0f}",
        "CPU s, user + system": lambda run: f"{run.cpu_user:.1f} + {run.cpu_system:.1f}",
        "events per CPU-s": lambda run: f"{run.per_cpu:,.0f}",
        "without start-up": lambda run: f"{run.per_working_cpu:,.0f}",
    },
)
_COST: Final = _Subject(
    "what it takes",
    {
        "broker CPU s": lambda run: f"{run.broker_cpu:.1f}",
        "peak MB": lambda run: f"{run.peak_mb:,.0f}",
        "state MB": lambda run: f"{run.state_mb:,.0f}",
        "first output s": lambda run: f"{run.first_output:.1f}",
        "cores used by others": lambda run: f"{run.foreign:.2f}",
        "check": lambda run: run.check,
    },
)


def tables(runs: Sequence[Run]) -> list[Table]:
    """The runs for a console."""
    shown = []
    for subject in (_SPEED, _COST):
        table = Table(title=subject.title)
        table.add_column("")
        for name in subject.columns:
            table.add_column(name, justify="right")
        for run in runs:
            table.add_row(run.name, *[cell(run) for cell in subject.columns.values()])
        shown.append(table)
    return shown
