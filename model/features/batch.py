"""Training examples as arrays: what every model reads.

P is the number of pages of a batch, N of its impressions (items of its pages, page after page), H of the
clicks in its users' histories. Ids are 64-bit hashes; a model turns them into rows of its own tables.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.hashing import U64, HashCache, hash_text
from prectr.model.features.smoothing import LEVELS, PriorRates, SmoothedRates
from prectr.stream.records import Example, decode_history, decode_page, decode_query_clicks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_PRICE: Final = 0
"""The price band of an item without a price (or with none that means anything)."""


def price_band(price: float | None) -> int:
    """One band for each doubling of a price, from 1; `NO_PRICE` where there is none.

    Prices span orders of magnitude, so the bands are even in the logarithm; any currency or unit will do.
    """
    if price is None or not math.isfinite(price) or price <= 0:
        return NO_PRICE
    return 1 + max(0, min(62, math.floor(math.log2(price)) + 20))


@dataclass(frozen=True, slots=True)
class HashedItem:
    """Hashes of one item: id, category, brand, and group (category × brand × price band)."""

    item: int
    category: int
    brand: int
    group: int
    price_band: int


@dataclass(frozen=True, slots=True)
class History:
    """The users' past clicks, oldest first, page after page."""

    page_of: Ints
    """int64[H]: the page that the click is history to."""
    item: U64
    category: U64
    brand: U64
    group: U64
    query: U64
    level: Ints
    age_days: Floats
    """float64[H]: days from the click to the page."""
    query_overlap: Floats
    """float64[H]: how alike the click's query is to the page's, 0 to 1 (`overlap`)."""


@dataclass(frozen=True, slots=True)
class QueryHistory:
    """The last clicks of all users for the pages' queries, oldest first, page after page."""

    page_of: Ints
    """int64[C]: the page whose query was clicked for."""
    item: U64
    category: U64
    brand: U64
    group: U64
    level: Ints
    age_days: Floats
    """float64[C]: days from the click to the page."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of pages as arrays."""

    examples: Sequence[Example]
    page_starts: Ints
    """int64[P + 1]: page p holds impressions page_starts[p] to page_starts[p + 1]."""
    page_of: Ints
    """int64[N]: the page of each impression."""
    item_ids: tuple[str, ...]
    labels: NDArray[np.uint8]
    """uint8[N]: 1 where clicked."""
    levels: NDArray[np.uint8]
    """uint8[N]: relevance, 1 to 4."""
    positions: Ints
    """int64[N]: place on the page, from 1."""
    user: U64
    """uint64[P]"""
    query: U64
    """uint64[P]"""
    item: U64
    """uint64[N], and so category, brand and group."""
    category: U64
    brand: U64
    group: U64
    price_band: Ints
    user_activity: Ints
    """int64[P]: joined clicks of the user before the page."""
    closes_at: Ints
    """int64[P]: effective close, ms."""
    rates: SmoothedRates
    history: History
    query_history: QueryHistory
    texts: tuple[tuple[str, str], ...]
    """Query (normalised) and title of each impression, N of them; empty where they were not asked for."""
    level_weights: Floats
    """float64[N, 4]: what a model is told of the level: the logged one as 1 among zeros, or P(level) as inferred."""
    similarity: Floats | None = None
    """float64[N]: e_q·e_i of the stage-one encoder, where it is read."""
    exposed: bool = True
    """Whether the impressions were shown, as those of a log were; not candidates that may be."""
    global_positions: Ints | None = None
    """int64[N]: where the impressions stand in a batch that several ranks share,"""
    global_size: int = 0
    """of so many; None and 0 where the batch is all there is."""

    @property
    def likeliest_levels(self) -> Ints:
        """int64[N]: the level that a model is told of, or the likeliest; 1 to 4."""
        likeliest: Ints = self.level_weights.argmax(axis=1) + 1
        return likeliest

    @property
    def pages(self) -> int:
        """P."""
        return len(self.examples)

    @property
    def impressions(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def request_ids(self) -> list[str]:
        """One a page."""
        return [example.request_id for example in self.examples]

    def at_position(self, position: int) -> "Batch":
        """The same batch with every impression at `position`: what ranking and unexposed candidates use."""
        return replace(self, positions=np.full_like(self.positions, position), exposed=False)


@dataclass(frozen=True, slots=True)
class FeatureNeeds:
    """What a model reads besides ids, places and rates."""

    history: bool = True
    query_history: bool = False
    texts: bool = False


class FeatureEncoder:
    """Examples → `Batch`. Remembers the hashes of ids and items that it saw last, a bounded number of them."""

    def __init__(self, capacity: int = 1 << 17) -> None:
        self._capacity = capacity
        self._hash = HashCache(capacity)
        self._item_cache: dict[tuple[str, str | None, str | None, float | None], HashedItem] = {}

    def encode(
        self, examples: Sequence[Example], prior_rates: PriorRates, needs: "FeatureNeeds | None" = None
    ) -> Batch:
        """A batch of at least one page.

        parents: the click rates by category and level as of now, what the rates by query and user lean on.
        reads: what the model reads besides; what it does not is left empty.
        """
        needs = needs or FeatureNeeds()
        ids: list[str] = []
        hashed_items: list[HashedItem] = []
        positions: list[int] = []
        sizes: list[int] = []
        texts: list[tuple[str, str]] = []
        for example in examples:
            items = decode_page(example.page).items
            sizes.append(len(items))
            if needs.texts:
                texts.extend([(example.query, item.title or "") for item in items])
            for position, item in enumerate(items, 1):
                ids.append(item.item_id)
                hashed_items.append(self._hashed_item(item.item_id, item.category, item.brand, item.price))
                positions.append(item.position or position)
        page_starts = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=page_starts[1:])
        page_of = np.repeat(np.arange(len(sizes)), sizes)
        levels = np.frombuffer(b"".join([example.levels for example in examples]), dtype=np.uint8)
        category = np.array([code.category for code in hashed_items], dtype=np.uint64)
        return Batch(
            examples=examples,
            page_starts=page_starts,
            page_of=page_of,
            item_ids=tuple(ids),
            labels=np.frombuffer(b"".join([example.labels for example in examples]), dtype=np.uint8),
            levels=levels,
            positions=np.array(positions, dtype=np.int64),
            user=np.array([self._hash(example.user_id) for example in examples], dtype=np.uint64),
            query=np.array([self._hash(example.query) for example in examples], dtype=np.uint64),
            item=np.array([code.item for code in hashed_items], dtype=np.uint64),
            category=category,
            brand=np.array([code.brand for code in hashed_items], dtype=np.uint64),
            group=np.array([code.group for code in hashed_items], dtype=np.uint64),
            price_band=np.array([code.price_band for code in hashed_items], dtype=np.int64),
            user_activity=np.array([example.user_activity for example in examples], dtype=np.int64),
            closes_at=np.array([example.closes_at for example in examples], dtype=np.int64),
            rates=prior_rates.smoothed_rates(
                category,
                page_of,
                np.array([example.query_stats for example in examples], dtype=np.float64),
                np.array([example.user_stats for example in examples], dtype=np.float64),
            ),
            history=self._history(examples if needs.history else ()),
            query_history=self._query_history(examples if needs.query_history else ()),
            texts=tuple(texts),
            level_weights=np.eye(LEVELS)[levels.astype(np.int64) - 1],
        )

    def _hashed_item(self, item_id: str, category: str | None, brand: str | None, price: float | None) -> HashedItem:
        key = (item_id, category, brand, price)
        cached = self._item_cache.get(key)
        if cached is None:
            if len(self._item_cache) >= self._capacity:
                self._item_cache.clear()
            band = price_band(price)
            cached = self._item_cache[key] = HashedItem(
                item=self._hash(item_id),
                category=self._hash(category),
                brand=self._hash(brand),
                # JSON-like, so that no pair of (category, brand) can be taken for another.
                group=hash_text(repr((category, brand, band))),
                price_band=band,
            )
        return cached

    def _history(self, examples: Sequence[Example]) -> History:
        hashed_items: list[HashedItem] = []
        page_of: list[int] = []
        queries: list[int] = []
        levels: list[int] = []
        ages: list[int] = []
        overlaps: list[float] = []
        for page, example in enumerate(examples):
            if example.user_activity == 0:
                continue
            words = frozenset(example.query.split())
            clicks = decode_history(example.history)
            page_of.extend([page] * len(clicks))
            for click in clicks:
                hashed_items.append(self._hashed_item(click.item_id, click.category, click.brand, click.price))
                queries.append(self._hash(click.query))
                levels.append(click.level)
                ages.append(example.ts - click.ts)
                overlaps.append(jaccard(words, frozenset(click.query.split())))
        return History(
            page_of=np.array(page_of, dtype=np.int64),
            item=np.array([code.item for code in hashed_items], dtype=np.uint64),
            category=np.array([code.category for code in hashed_items], dtype=np.uint64),
            brand=np.array([code.brand for code in hashed_items], dtype=np.uint64),
            group=np.array([code.group for code in hashed_items], dtype=np.uint64),
            query=np.array(queries, dtype=np.uint64),
            level=np.array(levels, dtype=np.int64),
            age_days=np.array(ages, dtype=np.float64) / 86_400_000.0,
            query_overlap=np.array(overlaps, dtype=np.float64),
        )

    def _query_history(self, examples: Sequence[Example]) -> QueryHistory:
        hashed_items: list[HashedItem] = []
        page_of: list[int] = []
        levels: list[int] = []
        ages: list[int] = []
        for page, example in enumerate(examples):
            for click in decode_query_clicks(example.query_clicks):
                page_of.append(page)
                hashed_items.append(self._hashed_item(click.item_id, click.category, click.brand, click.price))
                levels.append(click.level)
                ages.append(example.ts - click.ts)
        return QueryHistory(
            page_of=np.array(page_of, dtype=np.int64),
            item=np.array([code.item for code in hashed_items], dtype=np.uint64),
            category=np.array([code.category for code in hashed_items], dtype=np.uint64),
            brand=np.array([code.brand for code in hashed_items], dtype=np.uint64),
            group=np.array([code.group for code in hashed_items], dtype=np.uint64),
            level=np.array(levels, dtype=np.int64),
            age_days=np.array(ages, dtype=np.float64) / 86_400_000.0,
        )


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Words that two queries share, over all words of both (Jaccard 1901); 0 where neither has any."""
    union = len(left | right)
    return len(left & right) / union if union else 0.0
