"""The synthetic catalogue: items with attributes, and queries for some of these attributes.

The level of an item for a query follows from the attributes; the title mentions only some of them.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.state.errors import UsageError
from prectr.stream.simulator.catalogue import Catalogue, draw_exposable, zipf_popularity
from prectr.stream.simulator.vocabulary import (
    COLOURS,
    DEPARTMENTS,
    FEATURES,
    FILLERS,
    MATERIALS,
    SIZES,
    SYLLABLES,
    Forms,
)

BRANDS: Final = 200
CANDIDATES: Final = 60
OMIT_PROBABILITY: Final = 0.25
"""Probability that an attribute, or the brand, is not in the title."""

BRAND_PROBABILITY: Final = 0.7
ATTRIBUTE_COUNT_PROBABILITIES: Final = (0.05, 0.40, 0.55)
"""Probabilities that a query has 0, 1 or 2 attributes besides category and brand."""

LEVEL_SHARES: Final = (0.300, 0.224, 0.302, 0.174)
LEVEL_SHARES_SHORT: Final = (0.300, 0.375, 0.0, 0.325)
"""Shares of levels 1 to 4 among the candidates; the second for queries with fewer than two constraints.

These have no level 3 (half of one constraint is all of it), so the other levels have more; over all queries the
shares are 30/25/25/20 %.
"""

_TITLE_DRAWS: Final = 25
"""Upper limit of the random numbers per title: 15 for attributes, 3 for the noun, 7 for the rest."""

MAX_QUERY_TRIES: Final = 30
MIN_MATCH_SHARE: Final = 0.028
"""Share of its category that must match for a query to be accepted at the first try (14 of 500 items)."""
POOL_SIZE: Final = 500
"""A query's candidates come from at most this many items of its category, and as many of its siblings."""

_MARKET_SEED: Final = 20_261_101
"""Seed of the brands' categories, which are part of the vocabulary and the same for every world."""

_ATTRIBUTE_FORMS: Final[tuple[tuple[Forms, ...], ...]] = (COLOURS, SIZES, MATERIALS)
_CATEGORIES: Final[tuple[Forms, ...]] = tuple(forms for group in DEPARTMENTS.values() for forms in group)
_DEPARTMENT_OF: Final = np.repeat(np.arange(len(DEPARTMENTS)), [len(group) for group in DEPARTMENTS.values()])
_N_FEATURES: Final = len(FEATURES)


@dataclass(frozen=True, slots=True)
class _Items:
    """Attributes of the I items, sorted by category.

    Attributes:
        category, brand: int64 [I].
        first: int64 [41], index of the first item of each category.
        values: int64 [I, 3], colour, size, material.
        features: bool [I, 8].
        prices: float64 [I].
    """

    category: NDArray[np.int64]
    first: NDArray[np.int64]
    brand: NDArray[np.int64]
    values: NDArray[np.int64]
    features: NDArray[np.bool_]
    prices: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Intent:
    """The intent of a query: a category, a brand (−1 for any), and (kind, value) attributes.

    Kinds 0 to 2 are colour, size and material; kind 3 is a feature word.
    """

    category: int
    brand: int
    attributes: tuple[tuple[int, int], ...]

    @property
    def constraints(self) -> int:
        """Number of constraints besides the category."""
        return (self.brand >= 0) + len(self.attributes)


def synthetic_catalogue(seed: int, *, queries: int = 2000, items: int = 20_000) -> Catalogue:
    """Draw the synthetic catalogue of a seed; vocabulary and brands are the same for every seed.

    Raises:
        UsageError: fewer than 1,000 items, too few for the candidates, or no query.
    """
    if items < 1000 or queries < 1:
        raise UsageError(
            f"the synthetic catalogue needs at least 1000 items and 1 query, not {items} and {queries}: "
            "use larger numbers"
        )
    rng = np.random.default_rng([seed, 1])
    names = brand_names()
    stock = _draw_items(items, rng)
    titles = _titles(stock, names, rng)
    texts, candidates, levels = _draw_queries(stock, queries, names, rng)
    return Catalogue(
        name="synthetic",
        queries=texts,
        popularity=zipf_popularity(queries, rng),
        candidates=candidates,
        levels=levels,
        exposable=draw_exposable(levels, rng),
        item_ids=tuple(f"s{seed}i{i}" for i in range(items)),
        titles=titles,
        categories=tuple(_CATEGORIES[c][0] for c in stock.category.tolist()),
        brands=tuple(names[b] for b in stock.brand.tolist()),
        prices=stock.prices,
    )


def brand_names() -> tuple[str, ...]:
    """Return the 200 brand names, the same for every seed."""
    names = ["".join(parts) for parts in product(*SYLLABLES)]
    return tuple(np.random.default_rng(_MARKET_SEED).permutation(np.array(names))[:BRANDS].tolist())


def _brand_shares() -> NDArray[np.float64]:
    """Return the share of each brand in each category's items, float64 [40, 200]; a brand has 1 to 5 categories."""
    rng = np.random.default_rng(_MARKET_SEED + 1)
    share = np.zeros((len(_CATEGORIES), BRANDS))
    for brand in range(BRANDS):
        count = 1 + rng.choice(5, p=(0.30, 0.25, 0.20, 0.15, 0.10))
        share[rng.choice(len(_CATEGORIES), count, replace=False), brand] = rng.lognormal(0.0, 1.0)
    empty = share.sum(axis=1) == 0
    share[empty, rng.integers(0, BRANDS, int(empty.sum()))] = 1.0
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def _skewed_shares(values: int) -> NDArray[np.float64]:
    weights = 1.0 / (1.0 + 0.5 * np.arange(values))
    return np.asarray(weights / weights.sum())


def _draw_items(items: int, rng: np.random.Generator) -> _Items:
    """Draw attributes and prices; the numbers of items per category differ by at most one."""
    categories = len(_CATEGORIES)
    category = np.sort(np.arange(items) % categories)
    first = np.searchsorted(category, np.arange(categories + 1))
    brand_shares = _brand_shares()
    brand = np.concatenate(
        [rng.choice(BRANDS, int(first[c + 1] - first[c]), p=brand_shares[c]) for c in range(categories)]
    )
    values = np.stack([rng.choice(len(kind), items, p=_skewed_shares(len(kind))) for kind in _ATTRIBUTE_FORMS], axis=1)
    features = rng.random((items, _N_FEATURES)).argsort(axis=1) < 2
    base = np.random.default_rng(_MARKET_SEED + 2)
    level = base.uniform(np.log(15.0), np.log(300.0), (categories, 1)) + base.normal(0.0, 0.4, (1, BRANDS))
    prices = np.round(np.exp(level[category, brand] + rng.normal(0.0, 0.22, items)) + 0.5) - 0.05
    return _Items(category, first, brand, values, features, np.maximum(np.round(prices, 2), 0.95))


def _pick_form(forms: Forms, rng: np.random.Generator) -> str:
    return forms[int(rng.integers(len(forms)))]


def _titles(stock: _Items, names: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a title for every item."""
    draws = rng.random((len(stock.category), _TITLE_DRAWS)).tolist()
    features = (np.flatnonzero(stock.features.reshape(-1)) % _N_FEATURES).reshape(-1, 2).tolist()
    rows = zip(stock.category.tolist(), stock.brand.tolist(), stock.values.tolist(), features, draws, strict=True)
    return tuple(_title(category, names[brand], *rest) for category, brand, *rest in rows)


def _title(category: int, brand: str, values: list[int], features: list[int], draws: list[float]) -> str:
    """Compose a title: words for the item's attributes, each omitted with probability 25 % (but not the noun).

    Args:
        draws: `_TITLE_DRAWS` uniform numbers, used one by one; drawing them as one table is faster.
    """
    draw = iter(draws).__next__
    forms = [kind[value] for kind, value in zip(_ATTRIBUTE_FORMS, values, strict=True)] + [
        FEATURES[f] for f in features
    ]
    kept = sorted((draw(), form[int(draw() * len(form))]) for form in forms if draw() >= OMIT_PROBABILITY)
    words = [word for _, word in kept]
    nouns = _CATEGORIES[category]
    noun = nouns[int(draw() * len(nouns))]
    words.insert(int(draw() * (len(words) + 1)) if draw() < 0.4 else len(words), noun)
    if draw() >= OMIT_PROBABILITY:
        words.insert(0 if draw() < 0.8 else len(words), brand)
    if draw() < 0.5:
        words.append(FILLERS[int(draw() * len(FILLERS))])
    if draw() < 0.6:
        words.append(f"{chr(97 + int(draw() * 26))}{10 + int(draw() * 990)}")
    return " ".join(words)


def _intent_text(intent: _Intent, names: tuple[str, ...], rng: np.random.Generator) -> str:
    words = [_pick_form(FEATURES[v] if kind == 3 else _ATTRIBUTE_FORMS[kind][v], rng) for kind, v in intent.attributes]
    rng.shuffle(words)
    if intent.brand >= 0:
        words.insert(0, names[intent.brand])
    words.insert(
        int(rng.integers(len(words) + 1)) if rng.random() < 0.3 else len(words),
        _pick_form(_CATEGORIES[intent.category], rng),
    )
    return " ".join(words)


def _draw_intent(stock: _Items, branded: bool, kinds: list[int], rng: np.random.Generator) -> _Intent:
    """Draw an intent that some item fulfils: its category, its brand if `branded`, its attributes of these kinds."""
    item = int(rng.integers(len(stock.category)))
    attributes = tuple(
        (kind, int(rng.choice(np.flatnonzero(stock.features[item])) if kind == 3 else stock.values[item, kind]))
        for kind in kinds
    )
    return _Intent(int(stock.category[item]), int(stock.brand[item]) if branded else -1, attributes)


def _matches(stock: _Items, intent: _Intent, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many constraints besides the category each item fulfils, int64 [len(items)]."""
    count = np.zeros(len(items), dtype=np.int64)
    if intent.brand >= 0:
        count += stock.brand[items] == intent.brand
    for kind, value in intent.attributes:
        count += stock.features[items, value] if kind == 3 else stock.values[items, kind] == value
    return count


def _sample_window(low: int, high: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most `size` indices of [low, high): items of a category are alike, so a window is a sample."""
    count = high - low
    start = int(rng.integers(count)) if count > size else 0
    return low + (start + np.arange(min(size, count))) % count


def grade(
    constraints: int, matches: NDArray[np.int64], same: NDArray[np.bool_], sibling: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return the levels of items for a query, uint8, in the shape of `matches`.

    4: the category and all constraints; 3: the category and at least half of the constraints; 2: the category with
    fewer, or a sibling; 1: otherwise.

    Args:
        constraints: number of constraints besides the category.
        matches: how many of them each item fulfils.
        same, sibling: whether the item's category is the query's, or a sibling of it.
    """
    half_matched = same & (2 * matches >= constraints)
    levels = np.where(same & (matches == constraints), 4, np.where(half_matched, 3, np.where(same | sibling, 2, 1)))
    return levels.astype(np.uint8)


def _pool(stock: _Items, intent: _Intent, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Draw the possible candidates (of the category, its siblings and other categories) and their levels."""
    first, category = stock.first, intent.category
    own = _sample_window(int(first[category]), int(first[category + 1]), POOL_SIZE, rng)
    family = np.flatnonzero(_DEPARTMENT_OF[category] == _DEPARTMENT_OF)
    low, high = int(first[family[0]]), int(first[family[-1] + 1])
    near = _sample_window(low, high, POOL_SIZE, rng)
    near = near[stock.category[near] != category]
    far = rng.integers(0, len(stock.category), 4 * CANDIDATES)
    far = np.unique(far[(far < low) | (far >= high)])
    items = np.concatenate([own, near, far])
    item_category = stock.category[items]
    same_department = _DEPARTMENT_OF[item_category] == _DEPARTMENT_OF[category]
    same = item_category == category
    return items, grade(intent.constraints, _matches(stock, intent, items), same, same_department & ~same)


def _draw_candidates(
    items: NDArray[np.int64], levels: NDArray[np.uint8], constraints: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Draw 60 candidates with level counts from the shares; a shortfall of a level is filled from lower levels."""
    wanted = rng.multinomial(CANDIDATES, LEVEL_SHARES if constraints >= 2 else LEVEL_SHARES_SHORT)
    chosen: list[NDArray[np.int64]] = []
    shortfall = 0
    for level in (4, 3, 2, 1):
        here = np.flatnonzero(levels == level)
        count = min(len(here), int(wanted[level - 1]) + shortfall)
        shortfall = int(wanted[level - 1]) + shortfall - count
        chosen.append(rng.choice(here, count, replace=False))
    index = rng.permutation(np.concatenate(chosen))
    return items[index], levels[index]


def _draw_queries(
    stock: _Items, queries: int, names: tuple[str, ...], rng: np.random.Generator
) -> tuple[tuple[str, ...], NDArray[np.int32], NDArray[np.uint8]]:
    """Draw distinct queries with their candidates, int32 [Q, 60], and levels, uint8 [Q, 60]."""
    texts: dict[str, None] = {}
    candidates = np.full((queries, CANDIDATES), -1, dtype=np.int32)
    levels = np.zeros((queries, CANDIDATES), dtype=np.uint8)
    for q in range(queries):
        intent, text = _new_intent(stock, texts, names, rng)
        items, graded = _draw_candidates(*_pool(stock, intent, rng), intent.constraints, rng)
        candidates[q, : len(items)] = items
        levels[q, : len(items)] = graded
        texts[text] = None
    return tuple(texts), candidates, levels


def _new_intent(
    stock: _Items, used_texts: dict[str, None], names: tuple[str, ...], rng: np.random.Generator
) -> tuple[_Intent, str]:
    """Draw an unused query that enough items fulfil for its candidates of level 4.

    The number of constraints is drawn first, so that strict queries keep their intended share. With every try fewer
    matching items suffice; if every text is in use, a number makes it distinct, as in a model name.
    """
    branded = bool(rng.random() < BRAND_PROBABILITY)
    kinds = rng.permutation(4)[: rng.choice(3, p=ATTRIBUTE_COUNT_PROBABILITIES)].tolist()
    for attempt in range(MAX_QUERY_TRIES):
        intent = _draw_intent(stock, branded, kinds, rng)
        text = _intent_text(intent, names, rng)
        if text in used_texts:
            continue
        own = _sample_window(int(stock.first[intent.category]), int(stock.first[intent.category + 1]), POOL_SIZE, rng)
        fulfilled = int((_matches(stock, intent, own) == intent.constraints).sum())
        if fulfilled >= MIN_MATCH_SHARE * len(own) * (1.0 - attempt / MAX_QUERY_TRIES):
            return intent, text
    intent = _draw_intent(stock, branded, kinds, rng)
    return intent, f"{_intent_text(intent, names, rng)} {len(used_texts)}"
