"""The screen of `prectr top`: endpoints, counts and lag, quality of each model, and tasks."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from prectr.ops.report.numbers import DASH, count, duration, fixed
from prectr.ops.top.poller import StatusUpdate
from prectr.ops.top.stats import SEGMENTS, WINDOWS, AucPair, ExporterState, ModelState, SystemStatus, TaskState

_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDE_SCREEN: Final = 116
"""Minimum columns to show all windows."""
_TREND_WIDTHS: Final = (8, 48)
"""Minimum and maximum bars of a sparkline."""
_MIN_TASK_ROWS: Final = 4
_TITLES: Final = {"all": "all pages", "new": "new users", "low": "low activity", "active": "active users"}
_PROBLEMS: Final = ("dead_letter", "duplicate", "empty", "foreign", "late", "orphan", "other_action")
"""Outcomes of pages and clicks that are shown only if there are some."""
_LAG_LIMIT: Final = 60.0
"""Seconds of watermark lag above which a task is highlighted."""


def render(update: StatusUpdate, console: Console, *, note: str = "", full: bool = False) -> RenderableType:
    """The screen. note: shown in the title line. full: as high as needed, not limited to the height of the console."""
    status = update.status
    parts: list[RenderableType] = [_title(status, note, console.width)]
    parts += [Text(f"✗ {problem}", "bold red") for problem in update.problems]
    parts.append(_exporters(status.exporters))
    if not any(each.up for each in status.exporters):
        return Group(*parts, Text("\n" + no_response_hint(), style="yellow"))
    parts += [Text(), _counts(update)]
    parts += [_quality(model, update, console.width) for model in status.models]
    if not status.models:
        parts.append(Text("\nNo model yet: a trainer exports its models, the monitor those with a checkpoint.", "dim"))
    if status.tasks:
        used = len(console.render_lines(Group(*parts)))
        rows = len(status.tasks) if full else max(_MIN_TASK_ROWS, console.height - used - 4)
        parts += [Text(), _tasks(status.tasks, rows)]
    return Group(*parts)


def no_response_hint() -> str:
    """What to do if no endpoint responds."""
    return (
        "No endpoint responds. Start the system with `prectr run --bootstrap H:P --metrics-port 9401 --monitor-port "
        "9480` or `make up`, or name its endpoints with --endpoint and --monitor; the defaults are ports 9401 to 9416, "
        "9490 and 9480 of this machine."
    )


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The last values as bars scaled between their minimum and maximum; undefined values are gaps."""
    shown = values[-width:]
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    # Constant values are drawn in the middle, not at the bottom.
    return "".join(
        " " if value is None else _BARS[round((value - low) / (high - low) * 7) if high > low else 3] for value in shown
    )


def _title(status: SystemStatus, note: str, width: int) -> Text:
    up = sum(each.up for each in status.exporters)
    time = datetime.fromtimestamp(status.at, UTC).strftime("%H:%M:%S")
    title = Text().append("prectr top", "bold").append(f"  {time} UTC")
    title.append(f"  {up} of {len(status.exporters)} up", "green" if up == len(status.exporters) else "yellow")
    if note and title.cell_len + len(note) + 2 <= width:
        title.append(note.rjust(width - title.cell_len), "dim")
    return title


def _exporters(exporters: Iterable[ExporterState]) -> Table:
    """One row per endpoint, so that those that are down are visible at once, with the reason."""
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for each in exporters:
        mark = Text("●", "green") if each.up and not each.error else Text("○", "bold red")
        message = each.error
        if each.down_seconds is not None:
            message = f"down for {duration(each.down_seconds)}: {each.error}"
        elif not each.up:
            message = f"down: {each.error}"
        table.add_row(mark, each.kind or "exporter", _short(each.url), Text(message, "yellow"))
    return table


def _short(url: str) -> str:
    return url.removeprefix("http://").removesuffix("/metrics").removesuffix("/quality.json")


def _counts(update: StatusUpdate) -> Table:
    status = update.status
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row(
        "pages", _labelled_counts(status.pages, {"in": update.rates.get("in"), "emitted": update.rates.get("emitted")})
    )
    table.add_row("clicks", _labelled_counts(status.clicks, {"in": update.rates.get("clicks")}))
    rejected = {"unreadable": status.unreadable, "late records": status.late_records}
    rejected |= {f"dead letter {reason}": number for reason, number in status.dead_letters.items()}
    # What went wrong only where it did: a row of zeros hides the one that is not.
    found = [_labelled(name, number) for name, number in rejected.items() if number]
    if found:
        table.add_row("rejected", Text("  ").join(found))
    if status.last_event_at is not None:
        ago = f"{duration(max(0.0, status.at - status.last_event_at))} ago"
        table.add_row("input", _labelled("last event", ago))
    table.add_row(
        "progress",
        Text("  ").join(
            [
                _labelled("lag", status.lag),
                *(_labelled(f"lag of {models or 'the trainer'}", lag) for models, lag in status.lag_by_trainer.items()),
                _labelled(
                    "slowest task behind",
                    None if status.watermark_lag_seconds is None else duration(status.watermark_lag_seconds),
                ),
                _labelled(
                    "checkpoint",
                    None if status.checkpoint_age_seconds is None else f"{duration(status.checkpoint_age_seconds)} ago",
                ),
            ]
        ),
    )
    return table


def _labelled_counts(counts: dict[str, int], rates: dict[str, float | None]) -> Text:
    if not counts:
        return Text(DASH, "dim")
    return Text("  ").join(
        _labelled(name.replace("_", " "), number, rates.get(name))
        for name, number in counts.items()
        if number or name not in _PROBLEMS
    )


def _labelled(name: str, value: float | str | None, rate: float | None = None) -> Text:
    shown = DASH if value is None else value if isinstance(value, str) else count(value)
    text = Text().append(f"{name} ", "dim").append(shown)
    return text if rate is None else text.append(f" (+{fixed(rate, 1)}/s)", "cyan")


def _quality(model: ModelState, update: StatusUpdate, screen: int) -> Table:
    """AUC and GAUC by segment and window, with sparklines; a narrow screen shows fewer windows."""
    available = [window for window in WINDOWS if any(window in model.quality[segment] for segment in SEGMENTS)]
    windows = available if screen >= _WIDE_SCREEN else [window for window in available if window in ("1h", "run")]
    names = [[f"{name} {window}" for window in windows] for name in ("AUC", "GAUC")]
    used_width = max(map(len, _TITLES.values())) + 2
    used_width += sum(max(len(name), len("0.1234")) + 2 for part in names for name in part) + 4
    width = min(max((screen - used_width) // 2, _TREND_WIDTHS[0]), _TREND_WIDTHS[1])
    table = Table(title=_model_title(model, update), title_justify="left", title_style="", box=None, header_style="dim")
    table.padding = (0, 2, 0, 0)
    table.add_column("", no_wrap=True)
    for part in names:
        for name in part:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(update.trend_spans[model.model], no_wrap=True, min_width=width)
    for segment in SEGMENTS:
        cells: list[str | Text] = [_TITLES[segment]]
        for metric in ("auc", "gauc"):
            cells += [fixed(_metric_of(model.quality[segment].get(window, AucPair()), metric)) for window in windows]
            trend = [_metric_of(pair, metric) for pair in update.trends[model.model, segment]]
            cells.append(Text(sparkline(trend, width), "cyan"))
        table.add_row(*cells)
    return table


def _model_title(model: ModelState, update: StatusUpdate) -> Text:
    title = Text("\n").append(model.model, "bold")
    if model.trained_pages is not None:
        title.append("  ").append(_labelled("trained", model.trained_pages, update.rates.get(f"trained {model.model}")))
    if model.staleness_seconds is not None:
        title.append("  ").append(_labelled("staleness", duration(model.staleness_seconds)))
    if model.checkpoint_age_seconds is not None:
        title.append("  ").append(_labelled("checkpoint", f"{duration(model.checkpoint_age_seconds)} ago"))
    return title


def _metric_of(pair: AucPair, metric: str) -> float | None:
    return pair.auc if metric == "auc" else pair.gauc


def _tasks(tasks: Sequence[TaskState], rows: int) -> RenderableType:
    """All tasks; if there is no room, those with the largest lag."""
    shown = list(tasks)
    if len(shown) > rows:
        worst = sorted(tasks, key=lambda task: (task.watermark_lag_seconds or 0.0, task.lag or 0), reverse=True)
        shown = [task for task in tasks if task in worst[: max(1, rows - 1)]]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = ("partition", "offset", "lag", "watermark lag", "emitted", "to restore", "snapshot")
    table.add_column("task", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for task in shown:
        lagging = task.watermark_lag_seconds is not None and task.watermark_lag_seconds > _LAG_LIMIT
        table.add_row(
            f"{task.stage} {task.models}" if task.models else task.stage,
            str(task.partition),
            _count(task.offset),
            _count(task.lag),
            Text(
                DASH if task.watermark_lag_seconds is None else duration(task.watermark_lag_seconds),
                "yellow" if lagging else "",
            ),
            _count(task.emitted),
            _count(task.restore_remaining),
            DASH if task.snapshot_age_seconds is None else f"{duration(task.snapshot_age_seconds)} ago",
            Text("exported by two processes" if task.owners > 1 else "", "yellow"),
        )
    if len(shown) == len(tasks):
        return table
    return Group(table, Text(f"and {len(tasks) - len(shown)} more with less lag", "dim"))


def _count(value: int | None) -> str:
    return DASH if value is None else count(value)
