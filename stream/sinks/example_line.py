"""A line of the examples file: a page with all that is known of it, for other programs."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from prectr.state.aggregates import LEVELS, LevelCounts, LevelSums
from prectr.stream.records import Example, decode_page

Scores = Mapping[str, Sequence[float]]
"""The P(click) of a page's items, in the page's order, by model."""

NO_SCORES: Final[Scores] = {}


class ExampleItem(msgspec.Struct, omit_defaults=True):
    """One item of a page; what the log does not have is None, and absent in the file.

    Attributes:
        click: 0 or 1.
        relevance: level, 1 to 4; by the text where the log has none.
        position: counts from 1.
        features: as in the log.
        scores: P(click) at this position by each model of the run, from before it learned from the page. Empty where
            no model was trained, and for the last pages of a replay without flush, which no model has scored yet.
    """

    item_id: str
    click: int
    relevance: int
    position: int
    title: str | None = None
    price: float | None = None
    category: str | None = None
    brand: str | None = None
    features: dict[str, float | str] | None = None
    scores: dict[str, float] = {}


class ExampleLine(msgspec.Struct, omit_defaults=True):
    """A page. All statistics are as of its `ts`, and map level to [impressions, clicks].

    Attributes:
        query: normalised.
        ts: in ms since 1970.
        query_stats, user_stats: totals.
        user_activity: number of the user's joined clicks.
        closes_at: close time in ms; with request_id and user_id it gives the order of the lines.
        query_decayed: `query_stats` exponentially decayed, one for each of the setting `half_lives`.
        query_as_typed: as in the log.
        context, features: of the page, as in the log.
    """

    request_id: str
    user_id: str
    query: str
    ts: int
    items: list[ExampleItem]
    query_stats: dict[str, tuple[int, int]]
    user_stats: dict[str, tuple[int, int]]
    user_activity: int
    closes_at: int
    query_decayed: list[dict[str, tuple[float, float]]]
    query_as_typed: str
    context: dict[str, str] | None = None
    features: dict[str, float | str] | None = None


def example_line(example: Example, scores: Scores) -> ExampleLine:
    """Return the line of an example, with the scores that there are."""
    page = decode_page(example.page)
    return ExampleLine(
        example.request_id,
        example.user_id,
        example.query,
        example.ts,
        [
            ExampleItem(
                item.item_id,
                label,
                level,
                item.position or number,
                item.title,
                item.price,
                item.category,
                item.brand,
                item.features,
                {model: of_items[number - 1] for model, of_items in scores.items()},
            )
            for number, (item, label, level) in enumerate(
                zip(page.items, example.labels, example.levels, strict=True), 1
            )
        ],
        _counts_by_level(example.query_stats),
        _counts_by_level(example.user_stats),
        example.user_activity,
        example.closes_at,
        [_sums_by_level(sums) for sums in example.query_decayed],
        page.query,
        page.context,
        page.features,
    )


def _counts_by_level(counts: LevelCounts) -> dict[str, tuple[int, int]]:
    return {str(level): (counts[level - 1], counts[level + 3]) for level in LEVELS}


def _sums_by_level(sums: LevelSums) -> dict[str, tuple[float, float]]:
    return {str(level): (sums[level - 1], sums[level + 3]) for level in LEVELS}
