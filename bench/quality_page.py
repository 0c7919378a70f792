"""The result of `bench.quality` as a page for people (Markdown)."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Final

import msgspec

from bench.quality_rows import Difference, Row

SIDE_BY_SIDE: Final = 3
"""Up to this many seeds stand side by side; of more, mean ± standard deviation."""

_Columns = dict[str, tuple[str, str]]

QUALITY: Final[_Columns] = {
    "auc": ("AUC", ".4f"),
    "gauc": ("GAUC (page)", ".4f"),
    "log_loss": ("log loss", ".4f"),
    "calibration": ("calibration", ".3f"),
    "auc_expected": ("AUC, expected labels", ".4f"),
    "gauc_expected": ("GAUC, expected labels", ".4f"),
    "share_of_reference": ("share of the reference", ".2f"),
    "share_above_level": ("the same above position × level", ".2f"),
}
USERS: Final[_Columns] = {
    "auc_new": ("AUC, new users (< 3 clicks)", ".4f"),
    "auc_low": ("AUC, low (3–9)", ".4f"),
    "auc_active": ("AUC, active (≥ 10)", ".4f"),
    "auc_whole": ("AUC, whole log from its first impression", ".4f"),
    "impressions_per_second": ("impressions a second", ",.0f"),
}
UNEXPOSED: Final[_Columns] = {
    "auc_never_shown": ("AUC, never shown", ".4f"),
    "auc_unexposed": ("AUC, unexposed", ".4f"),
    "gauc_unexposed": ("GAUC, unexposed", ".4f"),
    "calibration_unexposed": ("calibration, unexposed", ".3f"),
    "expected_clicks": ("expected clicks of the top 10", ".3f"),
    "ndcg": ("NDCG@10, true p", ".4f"),
    "ndcg_level": ("NDCG@10, level", ".4f"),
    "share_level_1": ("level 1 in the top 10", ".3f"),
}


class Result(msgspec.Struct, kw_only=True):
    """Everything that the bench found, and where."""

    rows: list[Row]
    differences: list[Difference]
    pages: int
    days: float
    seeds: list[int]
    command: str
    date: str
    machine: str
    versions: str
    settings: dict[str, str]


def markdown(result: Result) -> str:
    """The page: what was measured, the tables, the paired differences."""
    seeds = f"seed {result.seeds[0]}"
    if len(result.seeds) > 1:
        few = len(result.seeds) <= SIDE_BY_SIDE
        together = "side by side" if few else "mean ± standard deviation over them"
        seeds = f"seeds {' / '.join(map(str, result.seeds))} ({together})"
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    lines = [
        "# Quality of the models in the simulated world",
        "",
        f"`{result.command}`, {result.date}, {result.machine}; {result.versions}.",
        "",
        f"Simulated log, {result.pages:,} pages over {result.days:g} days, {seeds},"
        f" replayed once through both stages with every model learning from the same examples"
        f" ({settings}). Each impression is scored before it is learned"
        " from, at the position it was shown at. Second half of the log and real clicks, unless a column says"
        " otherwise; expected labels: an impression of true click probability p counts p as a click and 1 − p as"
        " none. Track G: the impression's level is given to every model; no text vectors yet.",
        "",
        *_table(result.rows, QUALITY),
        "",
        "Share of the reference: (AUC − position alone) / (reference learner − position alone), seed by seed. The"
        " reference learner knows the world's form, constants and every item's taste vector; the oracle knows the true"
        " probability. Floors are click rates of the first half. Calibration is mean predicted over observed.",
        "",
        "## By the user's clicks so far, and the whole log",
        "",
        *_table(result.rows, USERS),
        "",
        "Impressions a second are those of training alone (wall time, one thread a model), decoding and stages left"
        " out; other work on the machine lowers them.",
        "",
        "## What was not shown",
        "",
        "Five candidates a page of the second half, drawn from those not shown, at position 1, against their true"
        " probabilities (never shown: the query never showed them before); and the ranking of all candidates on every"
        " 16th page: expected clicks of its top 10 (Σ p · rank^-0.7).",
        "",
        *_table(result.rows, UNEXPOSED),
    ]
    if result.differences:
        lines += ["", "## Paired differences over seeds", "", *_differences(result.differences)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], columns: _Columns) -> list[str]:
    lines = [f"| | {' | '.join(title for title, _ in columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        cells = [_cell([getattr(row, key) for row in own], style) for key, (_, style) in columns.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(values: Sequence[float | None], style: str) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    if len(known) <= SIDE_BY_SIDE:
        return " / ".join(format(value, style) for value in known)
    return f"{mean(known):{style}} ± {stdev(known):{style}}"


def _differences(differences: Sequence[Difference]) -> list[str]:
    figures = dict.fromkeys(one.figure for one in differences)
    titles = {key: title for columns in (QUALITY, USERS, UNEXPOSED) for key, (title, _) in columns.items()}
    lines = [
        f"Mean over {max(one.seeds for one in differences)} seeds with its 95 % interval (paired t). Steps under 0.001"
        " AUC count as unresolved, whatever the interval.",
        "",
        f"| | {' | '.join(titles[figure] for figure in figures)} |",
        f"|---|{'---|' * len(figures)}",
    ]
    for pair in dict.fromkeys((one.better, one.than) for one in differences):
        found = {one.figure: one for one in differences if (one.better, one.than) == pair}
        cells = [_difference(found[figure]) if figure in found else "" for figure in figures]
        lines.append(f"| {pair[0]} − {pair[1]} | {' | '.join(cells)} |")
    return lines


def _difference(one: Difference) -> str:
    interval = "" if one.interval is None else f" ({one.interval[0]:+.4f} … {one.interval[1]:+.4f})"
    return f"{one.mean:+.4f}{interval}"
