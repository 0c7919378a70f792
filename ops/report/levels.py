"""What a model that infers relevance from text says of it: P(level), a product of its own beside the click."""

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
    """Impressions that were logged with one level. levels: the mean of P(level) of them, by level."""

    impressions: int
    levels: dict[str, float]


class ItemLevels(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a page. logged: its level as logged, which the model has not seen."""

    item_id: str
    title: str | None
    position: int
    logged: int
    levels: dict[str, float]
    click_probability: float
    clicked: bool


class PageLevels(msgspec.Struct, frozen=True, kw_only=True):
    """A page with what was inferred of its items."""

    query: str
    items: list[ItemLevels]


class LevelReport(msgspec.Struct, frozen=True, kw_only=True):
    """P(level) of the last pages learned from, as the model infers it at the end.

    agreement: share of the impressions whose likeliest level is the one logged. log_loss: mean −ln P(level logged).
    by_logged: by logged level. last_pages: the newest of the pages.
    """

    pages: int
    impressions: int
    agreement: float
    log_loss: float
    by_logged: dict[str, LoggedLevelSummary]
    last_pages: list[PageLevels]


def level_report(pages: Sequence[Example], explanation: "Explanation") -> LevelReport:
    """Sum up what a model says of the N impressions of `pages`, which are at least one."""
    logged = np.frombuffer(b"".join(page.levels for page in pages), np.uint8).astype(np.int64)
    levels = explanation.levels
    by_logged = {
        str(level): LoggedLevelSummary(
            impressions=int((logged == level).sum()), levels=_by_level(levels[logged == level].mean(axis=0))
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
                levels=_by_level(explanation.levels[start + index]),
                click_probability=float(explanation.probability[start + index]),
                clicked=bool(page.labels[index]),
            )
            for index, item in enumerate(items)
        ],
    )


def _by_level(numbers: np.typing.NDArray[np.float64]) -> dict[str, float]:
    return {str(level): float(number) for level, number in zip(LEVELS, numbers, strict=True)}
