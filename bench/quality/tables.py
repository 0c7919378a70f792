"""Rows and differences as Markdown tables."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Final

from bench.quality.rows import Difference, Row

MAX_SEEDS_LISTED: Final = 3
"""Up to this many seeds are listed; beyond, mean ± standard deviation."""

Columns = dict[str, tuple[str, str]]
"""Title and format of the metrics of a `Row`, by field name."""

QUALITY_COLUMNS: Final[Columns] = {
    "auc_expected": ("AUC, expected labels", ".4f"),
    "auc": ("AUC, real clicks", ".4f"),
    "gauc_expected": ("GAUC, expected labels", ".4f"),
    "gauc": ("GAUC (page), real clicks", ".4f"),
    "log_loss": ("log loss", ".4f"),
    "calibration": ("calibration", ".3f"),
    "share_of_reference": ("share of the reference", ".2f"),
    "share_above_level": ("the same above position × level", ".2f"),
}
USER_COLUMNS: Final[Columns] = {
    "auc_new": ("AUC, new users (< 3 clicks)", ".4f"),
    "auc_low": ("AUC, low (3–9)", ".4f"),
    "auc_active": ("AUC, active (≥ 10)", ".4f"),
    "auc_whole": ("AUC, whole log from the first impression", ".4f"),
    "impressions_per_second": ("impressions/s", ",.0f"),
}
UNEXPOSED_COLUMNS: Final[Columns] = {
    "auc_never_shown": ("AUC, never shown", ".4f"),
    "auc_unexposed": ("AUC, unexposed", ".4f"),
    "gauc_unexposed": ("GAUC, unexposed", ".4f"),
    "calibration_unexposed": ("calibration, unexposed", ".3f"),
    "expected_clicks": ("expected clicks of the top 10", ".3f"),
    "ndcg": ("NDCG@10, true p", ".4f"),
    "ndcg_level": ("NDCG@10, level", ".4f"),
    "share_level_1": ("level 1 in the top 10", ".3f"),
}
PAPER_COLUMNS: Final[Columns] = {
    "auc_expected": ("AUC", ".4f"),
    "gauc_expected": ("GAUC (page)", ".4f"),
    "auc_new": ("AUC, new users", ".4f"),
    "auc_never_shown": ("AUC, never shown", ".4f"),
    "expected_clicks": ("expected clicks", ".3f"),
    "share_of_reference": ("share of the reference", ".2f"),
}
PAPER_RESULTS: Final = {
    "lr": ("0.6795", ""),
    "dnn": ("0.7541", ""),
    "wide-deep": ("0.7532", ""),
    "prectr": ("0.7581", "0.6892"),
    "prectr-v2": ("0.7674", "0.6933"),
    "prectr-v2 without cold-start": ("0.7609", ""),
    "prectr-v2 without debias": ("0.7658", ""),
}
"""AUC and GAUC of PRECTR-V2's own table (2026)."""
TITLES: Final = {
    key: title for columns in (QUALITY_COLUMNS, USER_COLUMNS, UNEXPOSED_COLUMNS) for key, (title, _) in columns.items()
}


def seeds_text(seeds: int) -> str:
    """Format a number of seeds: `1 seed`, `2 seeds`."""
    return f"{seeds} seed{'s' * (seeds != 1)}"


def row_table(rows: Sequence[Row], columns: Columns) -> list[str]:
    """One line per variant, in order of first appearance; with the number of seeds where it differs."""
    names = list(dict.fromkeys(row.name for row in rows))
    seeds = {name: len({row.seed for row in rows if row.name == name}) for name in names}
    lines = [f"| | {' | '.join(title for title, _ in columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for name in names:
        own = [row for row in rows if row.name == name]
        cells = [seed_cell([getattr(row, key) for row in own], style) for key, (_, style) in columns.items()]
        of_how_many = "" if len(set(seeds.values())) == 1 else f" ({seeds_text(seeds[name])})"
        lines.append(f"| {name}{of_how_many} | {' | '.join(cells)} |")
    return lines


def paper_table(rows: Sequence[Row]) -> list[str]:
    """The main metrics, with those of the paper's table in the last two columns."""
    lines = row_table(rows, PAPER_COLUMNS)
    lines[0] += " paper: AUC | paper: GAUC |"
    lines[1] += "---|---|"
    names = list(dict.fromkeys(row.name for row in rows))
    return lines[:2] + [
        f"{line} {' | '.join(PAPER_RESULTS.get(name, ('', '')))} |" for line, name in zip(lines[2:], names, strict=True)
    ]


def seed_cell(values: Sequence[float | None], style: str) -> str:
    """Format the values of several seeds; empty if one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    if len(known) <= MAX_SEEDS_LISTED:
        return " / ".join(format(value, style) for value in known)
    return f"{mean(known):{style}} ± {stdev(known):{style}}"


def difference_table(differences: Sequence[Difference], metrics: Sequence[str]) -> list[str]:
    """One line per pair of variants: mean differences with intervals, and whether the AUC difference is resolved."""
    present = [metric for metric in metrics if any(one.metric == metric for one in differences)]
    lines = [
        f"| | seeds | AUC difference | {' | '.join(TITLES[figure] for figure in present)} | over users |",
        f"|---|---|---|{'---|' * len(present)}---|",
    ]
    for pair in dict.fromkeys((one.better, one.other) for one in differences):
        found = {one.metric: one for one in differences if (one.better, one.other) == pair}
        step = found["auc_expected"]
        cells = [_format_difference(found[figure]) if figure in found else "" for figure in present]
        users = "" if step.user_interval is None else f"{step.user_interval[0]:+.4f} … {step.user_interval[1]:+.4f}"
        lines.append(f"| {pair[0]} − {pair[1]} | {step.seeds} | {verdict(step)} | {' | '.join(cells)} | {users} |")
    return lines


def verdict(one: Difference) -> str:
    """Classify a difference in AUC: above, below, unresolved, or one seed."""
    if one.interval is None:
        return "one seed"
    if not one.resolved:
        return "unresolved"
    return "**above**" if one.mean > 0 else "**below**"


def _format_difference(one: Difference) -> str:
    interval = "" if one.interval is None else f" ({one.interval[0]:+.4f} … {one.interval[1]:+.4f})"
    return f"{one.mean:+.4f}{interval}"
