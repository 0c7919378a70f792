"""The screen of `prectr top`: who answers, how far it is, how well each model does, and every task."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from prectr.ops.report.numbers import DASH, count, duration, fixed
from prectr.ops.top.poller import Round
from prectr.ops.top.stats import SEGMENTS, WINDOWS, ExporterState, Figures, ModelState, Pair, TaskState

_BARS: Final = "▁▂▃▄▅▆▇█"
_ROOMY: Final = 116
"""Columns from which all windows have their place."""
_LINE: Final = (8, 48)
"""Fewest and most bars of a line."""
_FEWEST_TASKS: Final = 4
_TITLES: Final = {"all": "all pages", "new": "new users", "low": "low activity", "active": "active users"}
_LAG_LIMIT: Final = 60.0
"""Seconds of event time above which a task stands out: pages wait for it."""


def drawn(seen: Round, console: Console, *, note: str = "", whole: bool = False) -> RenderableType:
    """The screen, as high as the console at most; `whole`: as high as it takes. note: of the title's line."""
    now = seen.figures
    parts: list[RenderableType] = [_title(now, note, console.width), _exporters(now.exporters)]
    if not any(each.answers for each in now.exporters):
        return Group(*parts, Text("\n" + advice(), style="yellow"))
    parts += [Text(), _counts(seen)]
    parts += [_quality(model, seen, console.width) for model in now.models]
    if not now.models:
        parts.append(Text("\nNo model yet: a trainer tells of its own, and the monitor after a checkpoint.", "dim"))
    if now.tasks:
        used = len(console.render_lines(Group(*parts)))
        rows = len(now.tasks) if whole else max(_FEWEST_TASKS, console.height - used - 4)
        parts += [Text(), _tasks(now.tasks, rows)]
    return Group(*parts)


def advice() -> str:
    """What to do where nothing answers."""
    return (
        "Nothing answers. Start the system with `prectr run --bootstrap H:P --metrics-port 9401 --monitor-port 9480` "
        "or `make up`, or name where its metrics are with --endpoint and --monitor; without these, ports 9401 to 9416, "
        "9490 and 9480 of this machine are asked."
    )


def spark(values: Sequence[float | None], width: int) -> str:
    """The last values as a line of bars between their least and their greatest; a gap where one is undefined."""
    shown = values[-width:]
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    # What does not move lies in the middle, not at the bottom.
    return "".join(
        " " if value is None else _BARS[round((value - low) / (high - low) * 7) if high > low else 3] for value in shown
    )


def _title(now: Figures, note: str, width: int) -> Text:
    answering = sum(each.answers for each in now.exporters)
    time = datetime.fromtimestamp(now.at, UTC).strftime("%H:%M:%S")
    title = Text().append("prectr top", "bold").append(f"  {time} UTC")
    title.append(
        f"  {answering} of {len(now.exporters)} answer", "green" if answering == len(now.exporters) else "yellow"
    )
    if note and title.cell_len + len(note) + 2 <= width:
        title.append(note.rjust(width - title.cell_len), "dim")
    return title


def _exporters(exporters: Iterable[ExporterState]) -> Table:
    """Side by side would be shorter, but who is away, and why, must be seen at once."""
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for each in exporters:
        mark = Text("●", "green") if each.answers and not each.trouble else Text("○", "bold red")
        said = each.trouble
        if each.away_seconds is not None:
            said = f"away for {duration(each.away_seconds)}: {each.trouble}"
        elif not each.answers:
            said = f"not there: {each.trouble}"
        table.add_row(mark, each.kind or "exporter", _short(each.url), Text(said, "yellow"))
    return table


def _short(url: str) -> str:
    return url.removeprefix("http://").removesuffix("/metrics").removesuffix("/quality.json")


def _counts(seen: Round) -> Table:
    now = seen.figures
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("pages", _named(now.pages, {"in": seen.a_second.get("in"), "emitted": seen.a_second.get("emitted")}))
    table.add_row("clicks", _named(now.clicks, {"in": seen.a_second.get("clicks")}))
    refused = Text("  ").join(
        [
            _figure("unreadable", now.unreadable),
            _figure("out of order", now.out_of_order),
            *(_figure(f"dead letter {reason}", number) for reason, number in now.dead_letters.items()),
        ]
    )
    table.add_row("refused", refused)
    table.add_row(
        "lag",
        Text("  ").join(
            [
                _figure("unread", now.unread),
                _figure("slowest task behind", None if now.lag_seconds is None else duration(now.lag_seconds)),
                _figure(
                    "checkpoint",
                    None if now.checkpoint_age_seconds is None else f"{duration(now.checkpoint_age_seconds)} ago",
                ),
            ]
        ),
    )
    return table


def _named(counts: dict[str, int], a_second: dict[str, float | None]) -> Text:
    if not counts:
        return Text(DASH, "dim")
    return Text("  ").join(
        _figure(name.replace("_", " "), number, a_second.get(name)) for name, number in counts.items()
    )


def _figure(name: str, value: float | str | None, a_second: float | None = None) -> Text:
    shown = DASH if value is None else value if isinstance(value, str) else count(value)
    text = Text().append(f"{name} ", "dim").append(shown)
    return text if a_second is None else text.append(f" (+{fixed(a_second, 1)}/s)", "cyan")


def _quality(model: ModelState, seen: Round, screen: int) -> Table:
    """AUC and GAUC by segment, by as many windows as have their place on the screen, with how they moved."""
    there = [window for window in WINDOWS if any(window in model.quality[segment] for segment in SEGMENTS)]
    windows = there if screen >= _ROOMY else [window for window in there if window in ("1h", "run")]
    names = [[f"{name} {window}" for window in windows] for name in ("AUC", "GAUC")]
    taken = max(map(len, _TITLES.values())) + 2
    taken += sum(max(len(name), len("0.1234")) + 2 for part in names for name in part) + 4
    width = min(max((screen - taken) // 2, _LINE[0]), _LINE[1])
    table = Table(title=_about(model, seen), title_justify="left", title_style="", box=None, header_style="dim")
    table.padding = (0, 2, 0, 0)
    table.add_column("", no_wrap=True)
    for part in names:
        for name in part:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(seen.span[model.model], no_wrap=True, min_width=width)
    for segment in SEGMENTS:
        cells: list[str | Text] = [_TITLES[segment]]
        for what in ("auc", "gauc"):
            cells += [fixed(_of(model.quality[segment].get(window, Pair()), what)) for window in windows]
            line = [_of(pair, what) for pair in seen.lines[model.model, segment]]
            cells.append(Text(spark(line, width), "cyan"))
        table.add_row(*cells)
    return table


def _about(model: ModelState, seen: Round) -> Text:
    about = Text("\n").append(model.model, "bold")
    if model.trained_pages is not None:
        about.append("  ").append(_figure("learned", model.trained_pages, seen.a_second.get(f"learned {model.model}")))
    if model.freshness_seconds is not None:
        about.append("  ").append(_figure("behind the stream", duration(model.freshness_seconds)))
    if model.checkpoint_age_seconds is not None:
        about.append("  ").append(_figure("checkpoint", f"{duration(model.checkpoint_age_seconds)} ago"))
    return about


def _of(pair: Pair, what: str) -> float | None:
    return pair.auc if what == "auc" else pair.gauc


def _tasks(tasks: Sequence[TaskState], rows: int) -> RenderableType:
    """Every task; where there is no place for all, those that are furthest behind."""
    shown = list(tasks)
    if len(shown) > rows:
        worst = sorted(tasks, key=lambda task: (task.behind_seconds or 0.0, task.unread or 0), reverse=True)
        shown = [task for task in tasks if task in worst[: max(1, rows - 1)]]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = ("partition", "position", "unread", "behind", "emitted", "to replay", "snapshot")
    table.add_column("task", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for task in shown:
        late = task.behind_seconds is not None and task.behind_seconds > _LAG_LIMIT
        table.add_row(
            task.stage,
            str(task.partition),
            _whole(task.position),
            _whole(task.unread),
            Text(DASH if task.behind_seconds is None else duration(task.behind_seconds), "yellow" if late else ""),
            _whole(task.emitted),
            _whole(task.replayed),
            DASH if task.snapshot_age_seconds is None else f"{duration(task.snapshot_age_seconds)} ago",
            Text("two processes say they have it" if task.owners > 1 else "", "yellow"),
        )
    if len(shown) == len(tasks):
        return table
    return Group(table, Text(f"and {len(tasks) - len(shown)} more that are less behind", "dim"))


def _whole(value: int | None) -> str:
    return DASH if value is None else count(value)
