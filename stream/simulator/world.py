"""A simulated world and its log as arrays: pages in time order, in blocks, with true click probabilities."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.state.errors import UsageError
from prectr.stream.simulator.catalogue import Catalogue
from prectr.stream.simulator.chorus import chorus_catalogue
from prectr.stream.simulator.clicks import ClickModelWeights, click_probability, draw_click_weights, logit_components
from prectr.stream.simulator.logging_policy import draw_rankings, ranker_scores
from prectr.stream.simulator.synthetic import synthetic_catalogue
from prectr.stream.simulator.users import PAGES_PER_USER, Users, draw_users

CatalogueName = Literal["synthetic", "chorus"]

START_MS: Final = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp() * 1000)
DAY_MS: Final = 86_400_000
DAILY_SWING: Final = 0.6
"""Pages arrive at rate 1 − 0.6·cos(2π·time of day): four times as many at noon as at midnight."""

ATTRIBUTION_MS: Final = 120_000
DELAY_MEDIAN_MS: Final = 12_000.0
DELAY_SIGMA: Final = math.log(ATTRIBUTION_MS / DELAY_MEDIAN_MS) / 2.3263478740408408
"""Log-normal click delays of which 1 % exceed the attribution window (2.326: the normal's 99 % quantile)."""

BLOCK_PAGES: Final = 20_000
"""Pages per random stream; changing it changes the log of every seed."""

_KEY_SPAN: Final = 1 << 37
"""More than any time since the start in ms (four years), so that user · span + time sorts by user, then time."""


class WorldSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a simulated log depends on.

    Attributes:
        pages: number of result pages, spread over `days` days.
        drift: change the kind of 30 % of the queries in the middle of the log.
        queries, items: of the synthetic catalogue only, by default 2,000 and 20,000.
        users: number of users; by default pages / 2.4.

    Raises:
        UsageError: a setting is out of range or does not fit the catalogue.
    """

    pages: int
    seed: int = 0
    catalogue: CatalogueName = "synthetic"
    days: float = 14.0
    drift: bool = False
    queries: int | None = None
    items: int | None = None
    users: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.catalogue not in get_args(CatalogueName):
            raise UsageError(f"catalogue {self.catalogue!r} is unknown; use synthetic or chorus")
        if self.catalogue == "chorus" and (self.queries is not None or self.items is not None):
            raise UsageError("the chorus catalogue has its own queries and items; their numbers cannot be set")
        for name in ("pages", "queries", "items", "users"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")
        if not 0 < self.days <= 1000:
            raise UsageError(f"days is {self.days}; it must be above 0 and at most 1000")


@dataclass(frozen=True, slots=True)
class World:
    """A world: catalogue, users and click model."""

    settings: WorldSettings
    catalogue: Catalogue
    users: Users
    click_weights: ClickModelWeights
    ranker_scores: NDArray[np.float64]
    """The logging policy's score of each candidate, [Q, C]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageBlock:
    """B consecutive pages of the log, each with at most S = 10 items.

    Attributes:
        first_page: number of the first page.
        ts: int64 [B], ms.
        user, query: int64 [B].
        slot: int64 [B, S], index among the query's candidates, −1 where the page is shorter.
        item: int64 [B, S].
        level: uint8 [B, S].
        logit_components: float64 [B, S, 4], the terms of z.
        probability: float64 [B, S], the true click probability.
        clicked: bool [B, S].
        click_ts: int64 [B, S], ms, defined where clicked.
        user_clicks: int64 [B], the user's joined clicks with a smaller ts.
        shown_before: int64 [B, S], number of earlier pages that showed the item for the query.
        shown_at_start: int64 [Q, C], how often each candidate was shown before the block; copy it to keep it, since it
            is updated in place when the next block is drawn.
    """

    first_page: int
    ts: NDArray[np.int64]
    user: NDArray[np.int64]
    query: NDArray[np.int64]
    slot: NDArray[np.int64]
    item: NDArray[np.int64]
    level: NDArray[np.uint8]
    logit_components: NDArray[np.float64]
    probability: NDArray[np.float64]
    clicked: NDArray[np.bool_]
    click_ts: NDArray[np.int64]
    user_clicks: NDArray[np.int64]
    shown_before: NDArray[np.int64]
    shown_at_start: NDArray[np.int64]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Where there is an item, bool [B, S]."""
        return np.asarray(self.slot >= 0)

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Clicks within the attribution window, bool [B, S]."""
        return np.asarray(self.clicked & (self.click_ts <= self.ts[:, None] + ATTRIBUTION_MS))


def make_catalogue(settings: WorldSettings) -> Catalogue:
    """Build the catalogue of a world."""
    if settings.catalogue == "chorus":
        return chorus_catalogue(settings.seed)
    return synthetic_catalogue(settings.seed, queries=settings.queries or 2000, items=settings.items or 20_000)


def make_world(settings: WorldSettings) -> World:
    """Draw the world of the settings; the same settings give the same world."""
    catalogue = make_catalogue(settings)
    users = draw_users(settings.seed, settings.users or max(1, round(settings.pages / PAGES_PER_USER)))
    click_weights = draw_click_weights(settings.seed, catalogue, drift=settings.drift)
    return World(settings, catalogue, users, click_weights, ranker_scores(catalogue, click_weights.item_popularity))


def page_times(settings: WorldSettings) -> NDArray[np.int64]:
    """Draw the times of all pages, int64 [pages], ms, ascending: a Poisson process with a daily cycle."""
    rng = np.random.default_rng([settings.seed, 4])
    grid = np.linspace(0.0, settings.days, max(2, round(settings.days * 288) + 1))
    cumulative = grid - DAILY_SWING * np.sin(2 * np.pi * grid) / (2 * np.pi)
    draws = np.sort(rng.random(settings.pages)) * cumulative[-1]
    return np.asarray(START_MS + (np.interp(draws, cumulative, grid) * DAY_MS).astype(np.int64))


def draw_pages(world: World) -> Iterator[PageBlock]:
    """Draw the whole log in time order; every block has a random stream of its own."""
    settings = world.settings
    times = page_times(settings)
    popularity = np.cumsum(world.catalogue.popularity)
    shown = np.zeros(world.ranker_scores.shape, dtype=np.int64)
    history = _ClickHistory(len(world.users.strictness))
    for number, first in enumerate(range(0, settings.pages, BLOCK_PAGES)):
        rng = np.random.default_rng([settings.seed, 5, number])
        ts = times[first : first + BLOCK_PAGES]
        block = _draw_block(
            world, first_page=first, ts=ts, popularity=popularity, shown=shown, history=history, rng=rng
        )
        yield block
        present = block.present
        rows = np.broadcast_to(block.query[:, None], block.slot.shape)
        np.add.at(shown, (rows[present], block.slot[present]), 1)


def in_second_half(settings: WorldSettings, pages: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether page numbers lie in the second half of the log."""
    return pages >= settings.pages // 2


def _draw_block(
    world: World,
    *,
    first_page: int,
    ts: NDArray[np.int64],
    popularity: NDArray[np.float64],
    shown: NDArray[np.int64],
    history: "_ClickHistory",
    rng: np.random.Generator,
) -> PageBlock:
    pages = len(ts)
    user = world.users.draw(pages, rng)
    query = np.searchsorted(popularity, rng.random(pages) * popularity[-1], side="right").astype(np.int64)
    slot = draw_rankings(world.ranker_scores[query], rng)
    present = slot >= 0
    shape = slot.shape
    item, level, components, probability = true_probabilities(
        world,
        page=np.broadcast_to(first_page + np.arange(pages)[:, None], shape),
        user=np.broadcast_to(user[:, None], shape),
        query=np.broadcast_to(query[:, None], shape),
        slot=slot,
        position=np.broadcast_to(1 + np.arange(shape[1]), shape),
    )
    probability = np.where(present, probability, 0.0)
    clicked = rng.random(shape) < probability
    delay = np.exp(rng.normal(math.log(DELAY_MEDIAN_MS), DELAY_SIGMA, shape))
    click_ts = ts[:, None] + 1 + delay.astype(np.int64)
    joined = clicked & (click_ts <= ts[:, None] + ATTRIBUTION_MS)
    users = np.broadcast_to(user[:, None], shape)
    return PageBlock(
        first_page=first_page,
        ts=ts,
        user=user,
        query=query,
        slot=slot,
        item=item,
        level=level,
        logit_components=components,
        probability=probability,
        clicked=clicked,
        click_ts=click_ts,
        user_clicks=history.before(user, ts, users[joined], click_ts[joined]),
        shown_before=shown_before(
            shown, shown_query=query, shown_slot=slot, query=query, page=np.arange(pages), slot=slot
        ),
        shown_at_start=shown,
    )


def true_probabilities(
    world: World,
    *,
    page: NDArray[np.int64],
    user: NDArray[np.int64],
    query: NDArray[np.int64],
    slot: NDArray[np.int64],
    position: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Return items, levels, terms of z and true click probabilities of impressions; all arguments have one shape [...].

    Args:
        slot: index among the query's candidates; where it is −1 the level is 0 and the other values are undefined.

    Returns:
        int64 [...], uint8 [...], float64 [..., 4] and float64 [...].
    """
    shape = slot.shape
    q, s = query.reshape(-1), slot.reshape(-1)
    item = world.catalogue.candidates[q, s].astype(np.int64)
    level = np.where(s >= 0, world.catalogue.levels[q, s], 0).astype(np.uint8)
    components = logit_components(
        world.click_weights,
        world.users,
        user=user.reshape(-1),
        query=q,
        item=item,
        level=level,
        second_half=in_second_half(world.settings, page.reshape(-1)),
    )
    probability = click_probability(components, position.reshape(-1))
    return item.reshape(shape), level.reshape(shape), components.reshape(*shape, 4), probability.reshape(shape)


def shown_before(
    at_start: NDArray[np.int64],
    *,
    shown_query: NDArray[np.int64],
    shown_slot: NDArray[np.int64],
    query: NDArray[np.int64],
    page: NDArray[np.int64],
    slot: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return how many earlier pages showed each candidate for the query, int64 [n, k]; undefined for slot −1.

    Args:
        at_start: int64 [Q, C], impressions before the block.
        shown_query: int64 [B], the queries of the block's pages.
        shown_slot: int64 [B, S], the candidates that they show.
        query, page: int64 [n], the query and the index in the block of each page to count for.
        slot: int64 [n, k], the candidates to count.
    """
    pages, candidates = len(shown_query), at_start.shape[1]
    present = shown_slot >= 0
    pair = shown_query[:, None] * candidates + shown_slot
    keys = np.sort((pair * pages + np.arange(pages)[:, None])[present])
    query_keys = (query[:, None] * candidates + slot) * pages
    inside = np.searchsorted(keys, query_keys + page[:, None]) - np.searchsorted(keys, query_keys)
    return np.asarray(at_start[query[:, None], slot] + inside)


class _ClickHistory:
    """Counts each user's joined clicks before a page's ts, across blocks."""

    def __init__(self, users: int) -> None:
        self._counted = np.zeros(users, dtype=np.int64)
        self._user = np.zeros(0, dtype=np.int64)
        self._ts = np.zeros(0, dtype=np.int64)

    def before(
        self,
        user: NDArray[np.int64],
        ts: NDArray[np.int64],
        click_user: NDArray[np.int64],
        click_ts: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the number of clicks of each page's user before its ts, int64 [B], given the block's own clicks."""
        users = np.concatenate([self._user, click_user])
        times = np.concatenate([self._ts, click_ts])
        keys = np.sort(users * _KEY_SPAN + times - START_MS)
        start = user * _KEY_SPAN
        inside = np.searchsorted(keys, start + ts - START_MS) - np.searchsorted(keys, start)
        counts = self._counted[user] + inside
        old = times < ts[-1]
        np.add.at(self._counted, users[old], 1)
        self._user, self._ts = users[~old], times[~old]
        return np.asarray(counts)
