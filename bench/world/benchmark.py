"""Oracle, baselines and reference learner of the simulated world, `python -m bench.world`.

No model is trained here: the quality of models is compared with these rows.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.provenance import command_line, machine
from bench.quality.ranking_quality import auc, page_gauc
from bench.world.reference_learner import LearnedParts, ReferenceLearner
from prectr.stream.simulator.catalogue import item_groups
from prectr.stream.simulator.ground_truth import draw_unexposed
from prectr.stream.simulator.world import (
    PageBlock,
    World,
    WorldSettings,
    draw_pages,
    in_second_half,
    make_world,
    shown_before,
    true_probabilities,
)

RESULTS: Final = Path(__file__).parents[1] / "results" / "world.md"
NEW_USER_CLICKS: Final = 3
LEARNERS: Final = {
    "reference learner": LearnedParts(),
    "without the group term": LearnedParts(group=False),
    "without learning β_q": LearnedParts(query=False, group=False),
    "without learning the user": LearnedParts(user=False, group=False),
    "neither": LearnedParts(user=False, query=False, group=False),
}


class Row(msgspec.Struct, frozen=True):
    """Quality of one scorer on the second half: with real clicks, and with expected labels."""

    name: str
    seed: int
    auc: float
    gauc: float
    auc_new: float
    auc_expected: float
    gauc_expected: float
    auc_unexposed: float | None
    auc_never_shown: float | None


class WorldStats(msgspec.Struct, frozen=True):
    """Statistics of a world; shares are fractions, lists are by level 1 to 4."""

    seed: int
    groups: int
    users: int
    clicks_a_page: float
    candidate_levels: list[float]
    exposed_levels: list[float]
    rest_levels: list[float]
    unexposed_shown_before: float
    pages_of_rare_users: float
    pages_of_new_users: float
    most_popular_query: float
    zipf_exponent: float


class Result(msgspec.Struct):
    """All results of the benchmark."""

    pages: int
    rows: list[Row]
    stats: list[WorldStats]
    seconds: float


@dataclass(frozen=True, slots=True)
class SimulatedLog:
    """A whole log as arrays: N pages of S slots, and 5 unexposed candidates per page.

    Page arrays as in `PageBlock`; u_*: the unexposed slice, (N, 5), meaningful in the second half only.
    """

    user: NDArray[np.int64]
    query: NDArray[np.int64]
    item: NDArray[np.int64]
    level: NDArray[np.uint8]
    probability: NDArray[np.float64]
    clicked: NDArray[np.bool_]
    present: NDArray[np.bool_]
    user_clicks: NDArray[np.int64]
    u_item: NDArray[np.int64]
    u_level: NDArray[np.uint8]
    u_probability: NDArray[np.float64]
    u_present: NDArray[np.bool_]
    u_shown: NDArray[np.int64]


def _unexposed_slice(world: World, block: PageBlock, number: int) -> tuple[NDArray[np.generic], ...]:
    """The unexposed slice of a block: item, level, true probability, mask, number of earlier impressions."""
    rng = np.random.default_rng([world.settings.seed, 7, number])
    late = np.ones(len(block.ts), dtype=np.bool_)
    slot = draw_unexposed(world, block, late, rng)
    shape, pages = slot.shape, np.arange(len(block.ts))
    item, level, _, probability = true_probabilities(
        world,
        page=np.broadcast_to(block.first_page + pages[:, None], shape),
        user=np.broadcast_to(block.user[:, None], shape),
        query=np.broadcast_to(block.query[:, None], shape),
        slot=slot,
        position=np.ones(shape, dtype=np.int64),
    )
    shown = shown_before(
        block.shown_at_start, shown_query=block.query, shown_slot=block.slot, query=block.query, page=pages, slot=slot
    )
    return item, level, probability, slot >= 0, shown


def read_log(world: World) -> SimulatedLog:
    """Draw the complete log of a world."""
    parts: list[tuple[NDArray[np.generic], ...]] = []
    for number, block in enumerate(draw_pages(world)):
        own = (block.user, block.query, block.item, block.level, block.probability)
        parts.append((*own, block.clicked, block.present, block.user_clicks, *_unexposed_slice(world, block, number)))
    return SimulatedLog(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def measure_row(
    log: SimulatedLog, seed: int, name: str, scores: NDArray[np.float64], unexposed: NDArray[np.float64] | None
) -> Row:
    """Measure scores, float64 (N, S), on the second half; unexposed: scores of that slice, float64 (N, 5), or None."""
    half = len(log.user) // 2
    present = log.present[half:]
    clicked = log.clicked[half:].astype(np.float64)
    true, late_scores = log.probability[half:], scores[half:]
    new = present & (log.user_clicks[half:, None] < NEW_USER_CLICKS)
    unexposed_present = log.u_present[half:]
    never = unexposed_present & (log.u_shown[half:] == 0)
    u_true = log.u_probability[half:]
    u_late = unexposed[half:] if unexposed is not None else None
    return Row(
        name=name,
        seed=seed,
        auc=auc(late_scores[present], clicked[present]),
        gauc=page_gauc(late_scores, clicked, present),
        auc_new=auc(late_scores[new], clicked[new]),
        auc_expected=auc(late_scores[present], true[present]),
        gauc_expected=page_gauc(late_scores, true, present),
        auc_unexposed=None if u_late is None else auc(u_late[unexposed_present], u_true[unexposed_present]),
        auc_never_shown=None if u_late is None else auc(u_late[never], u_true[never]),
    )


def baseline_tables(
    level: NDArray[np.uint8], present: NDArray[np.bool_], clicked: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Click rates by position on the page (from 0) and level, float64 (S, 5), by name of the baseline.

    level: uint8 (N, S); present: bool (N, S), mask of the impressions that count; clicked: bool (N, S).
    """
    width = level.shape[1]
    cells = np.arange(width) * 5 + level
    shown = np.bincount(cells[present], minlength=5 * width).reshape(width, 5)
    clicks = np.bincount(cells[present], clicked[present], minlength=5 * width).reshape(width, 5)
    by_position = (clicks.sum(axis=1) + 0.1) / (shown.sum(axis=1) + 1.0)
    return {
        "position × level": (clicks + 0.1) / (shown + 1.0),
        "position alone": np.repeat(by_position[:, None], 5, axis=1),
    }


def baseline_scores(log: SimulatedLog) -> dict[str, NDArray[np.float64]]:
    """Scores of the baselines, float64 (N, S), from the click rates of the first half."""
    half = len(log.user) // 2
    tables = baseline_tables(log.level[:half], log.present[:half], log.clicked[:half])
    positions = np.arange(log.level.shape[1])
    return {name: rates[positions, log.level] for name, rates in tables.items()}


def run_reference_learner(
    world: World, log: SimulatedLog, learns: LearnedParts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prequential scores of the reference learner: float64 (N, S), and (N, 5) for the unexposed slice."""
    learner = ReferenceLearner(world, learns)
    scores, unexposed = np.zeros(log.item.shape), np.zeros(log.u_item.shape)
    positions, first = np.arange(1, log.item.shape[1] + 1), np.ones(log.u_item.shape[1], dtype=np.int64)
    half = len(log.user) // 2
    for page, (user, query) in enumerate(zip(log.user.tolist(), log.query.tolist(), strict=True)):
        present = log.present[page]
        item, level = log.item[page][present], log.level[page][present]
        if page >= half:
            scores[page, present] = learner.score(user, query, item, level, positions[present])
            unexposed[page] = learner.score(user, query, log.u_item[page], log.u_level[page], first)
        learner.learn(user, query, item, level, log.clicked[page][present])
    return scores, unexposed


def world_stats(world: World, log: SimulatedLog) -> WorldStats:
    """Statistics of the world, for comparison with its specification."""
    pages = len(log.user)
    late = in_second_half(world.settings, np.arange(pages))
    levels = world.catalogue.levels
    pages_per_user = np.bincount(log.user)
    exposed = _shares(log.level[log.present])
    query_levels = levels[log.query]
    rest = _counts(query_levels) - _counts(log.level[log.present])
    shares = np.sort(world.catalogue.popularity)[::-1]
    rank = np.log(np.arange(1, len(shares) + 1))
    return WorldStats(
        seed=world.settings.seed,
        groups=int(item_groups(world.catalogue).max()) + 1,
        users=len(pages_per_user[pages_per_user > 0]),
        clicks_a_page=float(log.clicked.sum() / pages),
        candidate_levels=_shares(levels[levels > 0]),
        exposed_levels=exposed,
        rest_levels=(rest / rest.sum()).tolist(),
        unexposed_shown_before=float((log.u_shown[late] > 0)[log.u_present[late]].mean()),
        pages_of_rare_users=float(pages_per_user[pages_per_user < 4].sum() / pages),
        pages_of_new_users=float((log.user_clicks[late] < NEW_USER_CLICKS).mean()),
        most_popular_query=float(shares[0]),
        zipf_exponent=float(-np.polyfit(rank, np.log(shares), 1)[0]),
    )


def _counts(levels: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(levels.reshape(-1), minlength=5)[1:5].astype(np.int64)


def _shares(levels: NDArray[np.uint8]) -> list[float]:
    counts = _counts(levels)
    shares: list[float] = (counts / counts.sum()).tolist()
    return shares


def measure_world(settings: WorldSettings, *, learners: bool = True) -> tuple[list[Row], WorldStats]:
    """All rows of one world; learners: whether to include the reference learner, which takes the most time."""
    world = make_world(settings)
    log = read_log(world)
    rows = [measure_row(log, settings.seed, "oracle", log.probability, log.u_probability)]
    for name, learns in LEARNERS.items() if learners else ():
        rows.append(measure_row(log, settings.seed, name, *run_reference_learner(world, log, learns)))
    rows += [measure_row(log, settings.seed, name, scores, None) for name, scores in baseline_scores(log).items()]
    return rows, world_stats(world, log)


ROW_COLUMNS: Final = {
    "auc": "AUC",
    "gauc": "GAUC (page)",
    "auc_new": "AUC, new users",
    "auc_expected": "AUC, expected labels",
    "gauc_expected": "GAUC, expected labels",
    "auc_unexposed": "AUC, unexposed",
    "auc_never_shown": "AUC, never shown",
}


def markdown(result: Result, command: str) -> str:
    """Render the result as a page: a table of rows with all seeds, and the statistics of the world."""
    seeds = " / ".join(str(stats.seed) for stats in result.stats)
    lines = [
        "# Baselines, oracle and reference learner of the simulated world",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()},"
        f" {result.seconds:.0f} s. {result.pages:,} pages, second half, with real clicks unless labelled expected;"
        f" seeds {seeds}. Single-class pages are excluded from GAUC (weighted by impressions); with expected"
        " labels every page counts. Unexposed: 5 candidates not shown per page, position 1, expected labels.",
        "",
        f"| | {' | '.join(ROW_COLUMNS.values())} |",
        f"|---|{'---|' * len(ROW_COLUMNS)}",
    ]
    for name in dict.fromkeys(row.name for row in result.rows):
        rows = [row for row in result.rows if row.name == name]
        lines.append(f"| {name} | {' | '.join(_cell([getattr(row, key) for row in rows]) for key in ROW_COLUMNS)} |")
    lines += ["", f"| the world, seeds {seeds} | |", "|---|---|"]
    for key in WorldStats.__struct_fields__[1:]:
        values = [_value(getattr(figure, key)) for figure in result.stats]
        lines.append(f"| {key.replace('_', ' ')} | {' / '.join(values)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float | None]) -> str:
    return " / ".join("" if value is None else f"{value:.4f}" for value in values).strip(" /")


def _value(value: float | list[float]) -> str:
    if isinstance(value, list):
        return " ".join(f"{100 * share:.1f} %" for share in value)
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def main() -> None:
    """Measure, print, and write bench/results/world.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=60_000, help="pages per log")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument(
        "--no-learners",
        action="store_true",
        help="skip the reference learner, which takes most of the time, and write no page",
    )
    parser.add_argument("--json", type=Path, help="write the result as JSON")
    flags = parser.parse_args()
    start = time.monotonic()
    rows: list[Row] = []
    found: list[WorldStats] = []
    for seed in map(int, flags.seeds.split(",")):
        more, world = measure_world(WorldSettings(pages=flags.pages, seed=seed), learners=not flags.no_learners)
        rows += more
        found.append(world)
        print(f"seed {seed} done after {time.monotonic() - start:.0f} s", file=sys.stderr)
    result = Result(flags.pages, rows, found, time.monotonic() - start)
    text = markdown(result, command_line("bench.world", sys.argv[1:]))
    print(text)
    if not flags.no_learners:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text)
    if flags.json:
        flags.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
