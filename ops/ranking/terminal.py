"""Prints a ranking as a table."""

from datetime import UTC, datetime
from typing import Final

from rich.markup import escape
from rich.table import Table

from prectr.ops.cli.output import stdout_console
from prectr.ops.cli.terminal_escape import printable
from prectr.ops.ranking.result import Preference, Ranked, Ranking

_TITLE_WIDTH: Final = 40
_FILE_WIDTH: Final = 150
"""Columns where the output is not a terminal: wide enough for the table."""


def print_ranking(ranking: Ranking, top: int) -> None:
    """Print the best `top` candidates, and what explains them."""
    console = stdout_console(_FILE_WIDTH)
    time = datetime.fromtimestamp(ranking.as_of / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    without = f" without {', '.join(ranking.without)}" if ranking.without else ""
    query, user = printable(ranking.query), printable(ranking.user_id)
    table = Table(title=escape(f"{query!r} for {user}, {time}: {ranking.model}{without}"))
    table.add_column("", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("title", max_width=_TITLE_WIDTH, no_wrap=True)
    names = ["P(click)", "level", *(f"P({level})" for level in range(1, 5)), "incentive", "user", "query", "category"]
    for name in names:
        table.add_column(name, justify="right")
    for each in ranking.ranked[:top]:
        title = " ".join((each.title or "").split())
        table.add_row(str(each.rank), escape(printable(each.item_id)), escape(printable(title)), *_cells(each))
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


def _cells(ranked: Ranked) -> list[str]:
    incentive = "–" if ranked.incentive is None else f"{ranked.incentive:+.3f}"
    levels = (f"{probability:.2f}" for probability in ranked.level_probabilities.values())
    rates = (f"{rate:.3f}" for rate in (ranked.user_rate, ranked.query_rate, ranked.category_rate))
    return [f"{ranked.click_probability:.4f}", str(ranked.relevance_level), *levels, incentive, *rates]


def _explain_preference(name: str, preference: Preference) -> str:
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
