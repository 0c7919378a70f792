"""Training examples as arrays, the input of every model.

Shapes: P pages in a batch; N impressions (items of its pages, page after page); H clicks in the histories of its
users; C clicks in the histories of its queries. Ids are 64-bit hashes, which a model maps to rows of its tables.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.model.features.feature_slots import FeatureRows, FeatureSlots, no_features
from prectr.model.features.hashing import U64, HashCache, hash_text
from prectr.model.features.observed_features import ObservedFeatures
from prectr.model.features.smoothing import PriorRates, SmoothedRates
from prectr.state.aggregates import LEVEL_COUNT
from prectr.state.encoding import DAMAGE
from prectr.state.errors import TrainingError
from prectr.stream.records import Example, decode_history, decode_page, decode_query_clicks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
ClickT = TypeVar("ClickT")

NO_PRICE: Final = 0
"""The price band of an item without a valid price."""


def price_band(price: float | None) -> int:
    """The band of a price, one per doubling, from 1; `NO_PRICE` without a valid price.

    Prices span orders of magnitude, so bands are uniform in the logarithm, whatever the currency or unit.
    """
    if price is None or not math.isfinite(price) or price <= 0:
        return NO_PRICE
    return 1 + max(0, min(62, math.floor(math.log2(price)) + 20))


@dataclass(frozen=True, slots=True)
class HashedItem:
    """Hashes of an item: id, category, brand, and group (category × brand × price band)."""

    item: int
    category: int
    brand: int
    group: int
    price_band: int


@dataclass(frozen=True, slots=True)
class History:
    """Past clicks of the pages' users, oldest first, page after page."""

    page_of: Ints
    """int64[H]: the page whose history the click belongs to."""
    item: U64
    category: U64
    brand: U64
    group: U64
    query: U64
    level: Ints
    age_days: Floats
    """float64[H]: days from the click to the page."""
    query_overlap: Floats
    """float64[H]: similarity of the click's query and the page's, 0 to 1 (`jaccard`)."""


@dataclass(frozen=True, slots=True)
class QueryHistory:
    """Last clicks of all users for the pages' queries, oldest first, page after page."""

    page_of: Ints
    """int64[C]: the page whose query the click belongs to."""
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
    """int64[N]: position on the page, from 1."""
    user: U64
    """uint64[P]"""
    query: U64
    """uint64[P]"""
    item: U64
    """uint64[N], like category, brand and group."""
    category: U64
    brand: U64
    group: U64
    price_band: Ints
    user_activity: Ints
    """int64[P]: joined clicks of the user before the page."""
    closes_at: Ints
    """int64[P]: close time, ms."""
    rates: SmoothedRates
    query_decayed: Floats
    """float64[P, H, 8]: impressions at levels 1 to 4, then clicks, of the query, decayed with each of H half-lives."""
    history: History
    query_history: QueryHistory
    texts: tuple[tuple[str, str], ...]
    """Normalised query and title of each impression, N of them; empty if not needed."""
    level_weights: Floats
    """float64[N, 4]: the level as the model reads it: the logged one as one-hot, or the inferred P(level)."""
    observed: ObservedFeatures
    """The custom features as logged."""
    item_features: FeatureRows
    """Custom features of the N items,"""
    page_features: FeatureRows
    """and of the P pages and their contexts."""
    similarity: Floats | None = None
    """float64[N]: e_q·e_i of the stage-one encoder; None without text features."""
    exposed: bool = True
    """Whether the impressions were shown, like those of a log; false for candidates."""
    global_positions: Ints | None = None
    """int64[N]: positions of the impressions in the global batch that several ranks share,"""
    global_size: int = 0
    """which has this many impressions; None and 0 without sharding."""

    @property
    def likeliest_levels(self) -> Ints:
        """int64[N]: the supplied level, or the likeliest inferred one; 1 to 4."""
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
        """The request ids, one per page."""
        return [example.request_id for example in self.examples]

    def at_position(self, position: int) -> "Batch":
        """The same impressions as candidates, all at `position`: for ranking and for unexposed items."""
        return replace(self, positions=np.full_like(self.positions, position), exposed=False)


@dataclass(frozen=True, slots=True)
class FeatureNeeds:
    """The optional parts of a batch that a model reads, besides ids, positions and rates."""

    history: bool = True
    query_history: bool = False
    texts: bool = False


@dataclass(slots=True)
class _ShownItems:
    """The items of a batch's pages, page after page. sizes: items of each page."""

    sizes: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    hashed_items: list[HashedItem] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    observed: ObservedFeatures = field(default_factory=ObservedFeatures)


class FeatureEncoder:
    """Encodes examples as a `Batch`, with bounded caches of the hashes of ids and items."""

    def __init__(self, capacity: int = 1 << 17) -> None:
        self._capacity = capacity
        self._hash = HashCache(capacity)
        self._item_cache: dict[tuple[str, str | None, str | None, float | None], HashedItem] = {}

    def encode(
        self,
        examples: Sequence[Example],
        prior_rates: PriorRates,
        needs: FeatureNeeds | None = None,
        slots: FeatureSlots | None = None,
    ) -> Batch:
        """Encode at least one page; TrainingError: the clicks in an example are damaged.

        Args:
            examples: the pages.
            prior_rates: the current click rates by category and level, towards which those of query and user are
                smoothed.
            needs: the optional parts to fill; the others stay empty.
            slots: the custom features to encode, with their current statistics; None: none.
        """
        needs = needs or FeatureNeeds()
        shown = self._shown_items(examples, needs.texts)
        hashed_items, observed = shown.hashed_items, shown.observed
        page_starts = np.zeros(len(examples) + 1, dtype=np.int64)
        np.cumsum(shown.sizes, out=page_starts[1:])
        page_of = np.repeat(np.arange(len(examples)), shown.sizes)
        levels = np.frombuffer(b"".join([example.levels for example in examples]), dtype=np.uint8)
        category = np.array([code.category for code in hashed_items], dtype=np.uint64)
        return Batch(
            examples=examples,
            page_starts=page_starts,
            page_of=page_of,
            item_ids=tuple(shown.ids),
            labels=np.frombuffer(b"".join([example.labels for example in examples]), dtype=np.uint8),
            levels=levels,
            positions=np.array(shown.positions, dtype=np.int64),
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
            query_decayed=np.array([example.query_decayed for example in examples], dtype=np.float64),
            history=self._history(examples if needs.history else ()),
            query_history=self._query_history(examples if needs.query_history else ()),
            texts=tuple(shown.texts),
            level_weights=np.eye(LEVEL_COUNT)[levels.astype(np.int64) - 1],
            observed=observed,
            item_features=no_features(observed.items)
            if slots is None
            else slots.encode(observed, ("item",), self._hash),
            page_features=no_features(observed.pages)
            if slots is None
            else slots.encode(observed, ("page", "context"), self._hash),
        )

    def _shown_items(self, examples: Sequence[Example], needs_texts: bool) -> "_ShownItems":
        shown = _ShownItems()
        for example in examples:
            page = decode_page(example.page)
            items = page.items
            shown.observed.add(page)
            shown.sizes.append(len(items))
            if needs_texts:
                shown.texts.extend([(example.query, item.title or "") for item in items])
            for position, item in enumerate(items, 1):
                shown.ids.append(item.item_id)
                shown.hashed_items.append(self._hashed_item(item.item_id, item.category, item.brand, item.price))
                shown.positions.append(item.position or position)
        return shown

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
                # repr delimits the fields, so that no two (category, brand) have the same text.
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
            clicks = _clicks_of(example, decode_history, example.history)
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
            for click in _clicks_of(example, decode_query_clicks, example.query_clicks):
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


def _clicks_of(example: Example, decode: Callable[[msgspec.Raw], list[ClickT]], clicks: msgspec.Raw) -> list[ClickT]:
    """Decode the clicks in an example.

    Raises:
        TrainingError: they are damaged; it names the page.
    """
    try:
        return decode(clicks)
    except DAMAGE as error:
        raise TrainingError(
            f"the example of page {example.request_id!r} holds clicks that no task of this system writes ({error}): "
            "another program writes to the topic of the examples"
        ) from error


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Words that two queries share over the words of both (Jaccard 1901); 0 if both are empty."""
    union = len(left | right)
    return len(left & right) / union if union else 0.0
