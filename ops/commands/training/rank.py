"""`prectr rank`: candidates in the order in which a run would show them, and why."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from prectr.ops.ranking.candidates import read_candidates

if TYPE_CHECKING:
    from prectr.ops.ranking.result import Preference, Ranked, Ranking

_TITLE_WIDTH: Final = 40
_FILE_WIDTH: Final = 150
"""Columns where the output is no terminal: wide enough for the table."""


def rank(
    run_dir: Annotated[Path, typer.Option(help="Folder of a replay, or of prectr train or run.")],
    query: Annotated[str, typer.Option(help="As a user would type it.")],
    user: Annotated[str, typer.Option(help="The user's id; one never seen is ranked for as a new one.")],
    candidates: Annotated[
        Path, typer.Option(help="Items to rank: JSON Lines or CSV with item_id, title, price …; -: standard input.")
    ],
    state_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Of a live run: state folder of prectr stream, of every process of several."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Which model of a run that has trained several.")] = None,
    expect_without: Annotated[
        str | None, typer.Option(help="Make sure that the model was trained without these parts, with commas.")
    ] = None,
    position: Annotated[int, typer.Option(min=1, max=200, help="Score every item as if shown here.")] = 1,
    as_of: Annotated[
        str | None, typer.Option(help="When it is asked, such as 2026-01-31T12:00 (UTC); else at the newest event.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Print so many.")] = 20,
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file; they must be the run's.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole ranking to this file, for a program.")] = None,
) -> None:
    """Rank candidates by a run's newest checkpoint and state: click probability, P(level), incentive, and why.

    Example: prectr rank --run-dir run --query "usb cable" --user u7 --candidates items.csv
    """
    items = read_candidates(candidates)
    as_of_ms = None if as_of is None else _milliseconds(as_of)
    # torch takes seconds to import, and --help and a wrong file need none.
    from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef  # noqa: PLC0415

    run_ref = RunRef(run_dir=run_dir, state_dirs=state_dir or (), model=model, without=expect_without, config=config)
    ranking = RunRanker(run_ref).rank(
        RankQuery(query=query, user_id=user, items=items, position=position, as_of=as_of_ms)
    )
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(ranking)) + b"\n")
    _print(ranking, top)


def _milliseconds(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time: write it like 2026-01-31T12:00", param_hint="--as-of"
        ) from error
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
        console.print(f"… and {len(ranking.ranked) - top:,} more: --top or --json")
    console.print(
        "level: the likeliest; incentive: what is added to the log-odds of a click at it, for what this user and all "
        "users of the query have clicked; user, query, category: click rates at it, smoothed.",
        highlight=False,
    )
    for name, of in (("user", ranking.user_preference), ("query", ranking.query_preference)):
        console.print(_explain_preference(name, of), highlight=False, markup=False)
    for note in ranking.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    console.print(
        f"checkpoint: {ranking.checkpoint}, {ranking.pages_trained:,} pages learned from",
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
    """What a user or a query prefers, and on what ground."""
    if preference.preferred is None:
        return f"{name} {preference.name!r}: no closed page yet, so no preferred level but the category's"
    rates = ", ".join(
        f"{level}: {preference.rates[level]:.3f} (category {preference.prior_rates[level]:.3f}; "
        f"{preference.clicks[level]:,} of {preference.impressions[level]:,})"
        for level in preference.rates
    )
    return f"{name} {preference.name!r} prefers level {preference.preferred}. Click rate by level, smoothed: {rates}"
