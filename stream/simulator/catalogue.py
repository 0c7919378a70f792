"""The catalogue of a simulated shop: queries, items, and the relevance of each candidate to its query."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ZIPF_EXPONENT: Final = 0.9
"""The popularity of the query of rank r is proportional to r^-0.9."""

NEVER_EXPOSED_SHARE: Final = 0.10
"""Share of each query's candidates that the logging policy never shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Q queries with graded candidates, at most C each, out of I items.

    Attributes:
        name: `synthetic` or `chorus`.
        queries: Q normalised query texts.
        popularity: float64 [Q], sums to 1.
        candidates: int32 [Q, C], index of the item, −1 where a query has fewer than C candidates.
        levels: uint8 [Q, C], 1 to 4, 0 where there is no candidate.
        exposable: bool [Q, C], whether the logging policy can show the candidate.
        item_ids, titles, categories, brands: I texts each.
        prices: float64 [I], in units of currency.
    """

    name: str
    queries: tuple[str, ...]
    popularity: NDArray[np.float64]
    candidates: NDArray[np.int32]
    levels: NDArray[np.uint8]
    exposable: NDArray[np.bool_]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[str, ...]
    brands: tuple[str, ...]
    prices: NDArray[np.float64]


def zipf_popularity(queries: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the popularity of each query, float64 [queries]: Zipf with exponent 0.9 over a random ranking."""
    weights = np.arange(1, queries + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    weights /= weights.sum()
    return rng.permutation(weights)


def draw_exposable(levels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the candidates that can be shown, bool [Q, C]: all but a tenth of each query's, uniformly.

    Args:
        levels: uint8 [Q, C], 0 where there is no candidate.
    """
    present = levels > 0
    order = np.where(present, rng.random(levels.shape), 2.0).argsort(axis=1).argsort(axis=1)
    hidden = np.round(NEVER_EXPOSED_SHARE * present.sum(axis=1)).astype(np.int64)
    return np.asarray(present & (order >= hidden[:, None]))


def price_bands(prices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the price band of each item, int64 [I]: one band per doubling of the price."""
    return np.floor(np.log2(np.maximum(prices, 0.01))).astype(np.int64)


def item_groups(catalogue: Catalogue) -> NDArray[np.int64]:
    """Return the group of each item, int64 [I], from 0: category × brand × price band."""
    _, category = np.unique(np.asarray(catalogue.categories), return_inverse=True)
    _, brand = np.unique(np.asarray(catalogue.brands), return_inverse=True)
    key = np.stack([category, brand, price_bands(catalogue.prices)], axis=1)
    _, group = np.unique(key, axis=0, return_inverse=True)
    return group.reshape(-1).astype(np.int64)
