"""`prectr rank`: candidates in the order in which a run would show them, and why."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from prectr.ops.cli.options import ConfigFile, JsonFile
from prectr.ops.json_file import write_json
from prectr.ops.ranking.candidates import read_candidates

if TYPE_CHECKING:
    from prectr.ops.ranking.result import Preference, Ranked, Ranking

_TITLE_WIDTH: Final = 40
_FILE_WIDTH: Final = 150
"""Columns where the output is not a terminal: wide enough for the table."""


def rank(
    run_dir: Annotated[Path, typer.Option(help="Run folder of prectr replay, train or run.")],
    query: Annotated[str, typer.Option(help="Raw query text.")],
    user: Annotated[str, typer.Option(help="User id; an unknown user is treated as new.")],
    candidates: Annotated[
        Path,
        typer.Option(help="Items to rank: JSON Lines or CSV with item_id, title, price ...; - reads standard input."),
    ],
    state_dir: Annotated[
        list[Path] | None,
        typer.Option(help="For a live run: the state folder of each prectr stream worker; repeatable."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to rank with, if the run has trained several.")] = None,
    expect_without: Annotated[
        str | None, typer.Option(help="Fail unless the model was trained without these components, comma-separated.")
    ] = None,
    position: Annotated[int, typer.Option(min=1, max=200, help="Score every item as if shown at this position.")] = 1,
    as_of: Annotated[
        str | None,
        typer.Option(help="Rank as of this time, such as 2026-01-31T12:00 (UTC); default: the newest event."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of items to print.")] = 20,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Rank candidates with the newest checkpoint and state of a run, with an explanation: P(level), incentive, rates.

    Any settings given must match the run's.

    Example: prectr rank --run-dir run --query "usb cable" --user u7 --candidates items.csv
    """
    items = read_candidates(candidates)
    as_of_ms = None if as_of is None else _milliseconds(as_of)
    # torch takes seconds to import, and --help and an invalid file need none.
    from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef  # noqa: PLC0415

    run_ref = RunRef(run_dir=run_dir, state_dirs=state_dir or (), model=model, without=expect_without, config=config)
    ranking = RunRanker(run_ref).rank(
        RankQuery(query=query, user_id=user, items=items, position=position, as_of=as_of_ms)
    )
    write_json(json, ranking)
    _print(ranking, top)


def _milliseconds(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-01-31T12:00", param_hint="--as-of") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _print(ranking: "Ranking", top: int) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    time = datetime.fromtimestamp(ranking.as_of / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    without = f" without {', '.join(ranking.without)}" if ranking.without else ""
    table = Table(title=f"{escape(ranking.query)!r} for {escape(ranking.user_id)}, {time}: {ranking.model}{without}")
    table.add_column("", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("title", max_width=_TITLE_WIDTH, no_wrap=True)
    names = ["P(click)", "level", *(f"P({level})" for level in range(1, 5)), "incentive", "user", "query", "category"]
    for name in names:
        table.add_column(name, justify="right")
    for each in ranking.ranked[:top]:
        title = " ".join((each.title or "").split())
        table.add_row(str(each.rank), escape(each.item_id), escape(title), *_cells(each))
    console.print(table)
    if len(ranking.ranked) > top:
        console.print(f"… and {len(ranking.ranked) - top:,} more; see --top and --json")
    console.print(
        "level: the most likely relevance level; incentive: added to the log-odds of a click at that level, from the "
        "clicks of this user and of all users of the query; user, query, category: smoothed click rates at that level.",
        highlight=False,
    )
    for name, found in (("user", ranking.user_preference), ("query", ranking.query_preference)):
        console.print(_explain_preference(name, found), highlight=False, markup=False)
    for note in ranking.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    console.print(
        f"checkpoint: {ranking.checkpoint}, trained on {ranking.pages_trained:,} pages",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _cells(ranked: "Ranked") -> list[str]:
    incentive = "–" if ranked.incentive is None else f"{ranked.incentive:+.3f}"
    levels = (f"{probability:.2f}" for probability in ranked.level_probabilities.values())
    rates = (f"{rate:.3f}" for rate in (ranked.user_rate, ranked.query_rate, ranked.category_rate))
    return [f"{ranked.click_probability:.4f}", str(ranked.relevance_level), *levels, incentive, *rates]


def _explain_preference(name: str, preference: "Preference") -> str:
    """The preferred level of a user or query, with its click rates at the levels that it was shown."""
    if preference.preferred is None:
        return f"{name} {preference.name!r}: no closed page yet; the click rates are those of the category"
    rates = ", ".join(
        f"{level}: {preference.rates[level]:.3f} (category {preference.prior_rates[level]:.3f}; "
        f"{preference.clicks[level]:,} of {preference.impressions[level]:,})"
        for level in preference.rates
        if preference.impressions[level]
    )
    return f"{name} {preference.name!r} prefers level {preference.preferred}. Click rate by level, smoothed: {rates}"
