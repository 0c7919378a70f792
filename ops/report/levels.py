"""Summarises the relevance levels that a model infers from text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from prectr.state.aggregates import LEVELS
from prectr.stream.records import Example, decode_page

if TYPE_CHECKING:
    from prectr.model.quality.explanation import Explanation

_PAGES_SHOWN: Final = 3


class LoggedLevelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The impressions with the same logged level. levels: their mean P(level), by level."""

    impressions: int
    levels: dict[str, float]


class ItemLevels(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a page. logged: its logged level, which the model has not seen."""

    item_id: str
    title: str | None
    position: int
    logged: int
    levels: dict[str, float]
    click_probability: float
    clicked: bool


class PageLevels(msgspec.Struct, frozen=True, kw_only=True):
    """A page with the inferred levels of its items."""

    query: str
    items: list[ItemLevels]


class LevelReport(msgspec.Struct, frozen=True, kw_only=True):
    """P(level) of the last trained pages, inferred by the model at the end of the run.

    agreement: share of the impressions whose most likely level is the logged one. log_loss: mean of -ln P(logged
    level). by_logged: by logged level. last_pages: the newest pages.
    """

    pages: int
    impressions: int
    agreement: float
    log_loss: float
    by_logged: dict[str, LoggedLevelSummary]
    last_pages: list[PageLevels]


def level_report(pages: Sequence[Example], explanation: "Explanation") -> LevelReport:
    """Summarise the explanation of the impressions of `pages`; there must be at least one page."""
    logged = np.frombuffer(b"".join(page.levels for page in pages), np.uint8).astype(np.int64)
    levels = explanation.levels
    by_logged = {
        str(level): LoggedLevelSummary(
            impressions=int((logged == level).sum()), levels=by_level(levels[logged == level].mean(axis=0))
        )
        for level in LEVELS
        if (logged == level).any()
    }
    starts = np.concatenate(([0], np.cumsum([len(page.levels) for page in pages])))
    shown = range(len(pages) - 1, max(len(pages) - 1 - _PAGES_SHOWN, -1), -1)
    return LevelReport(
        pages=len(pages),
        impressions=len(logged),
        agreement=float((levels.argmax(axis=1) + 1 == logged).mean()),
        log_loss=float(-np.log(np.maximum(levels[np.arange(len(logged)), logged - 1], 1e-12)).mean()),
        by_logged=by_logged,
        last_pages=[_page(pages[index], explanation, int(starts[index])) for index in shown],
    )


def _page(page: Example, explanation: "Explanation", start: int) -> PageLevels:
    items = decode_page(page.page).items
    return PageLevels(
        query=page.query,
        items=[
            ItemLevels(
                item_id=item.item_id,
                title=item.title,
                position=item.position or index + 1,
                logged=page.levels[index],
                levels=by_level(explanation.levels[start + index]),
                click_probability=float(explanation.probability[start + index]),
                clicked=bool(page.labels[index]),
            )
            for index, item in enumerate(items)
        ],
    )


def by_level(numbers: np.typing.NDArray[np.float64]) -> dict[str, float]:
    """A number for each relevance level, "1" to "4", as JSON has it."""
    return {str(level): float(number) for level, number in zip(LEVELS, numbers, strict=True)}
