"""The logging policy: the candidates that a page shows, and their order."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.stream.simulator.catalogue import Catalogue

PAGE_ITEMS: Final = 10
LEVEL_WEIGHT: Final = 1.5


def ranker_scores(catalogue: Catalogue, item_popularity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the policy's score of each candidate, 1.5·level + pop, float64 [Q, C]; −∞ if it is never exposed."""
    scores = LEVEL_WEIGHT * catalogue.levels + item_popularity[catalogue.candidates]
    return np.where(catalogue.exposable, scores, -np.inf)


def draw_rankings(scores: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the candidates of each page in the order shown, int64 [pages, 10], −1 where there are fewer.

    Gumbel noise makes each page a Plackett-Luce draw.

    Args:
        scores: float64 [pages, C], the rows of `ranker_scores` for the pages' queries.
    """
    noisy = scores + rng.gumbel(size=scores.shape)
    shown = min(PAGE_ITEMS, scores.shape[1])
    best = np.argpartition(-noisy, shown - 1, axis=1)[:, :shown]
    order = np.argsort(-np.take_along_axis(noisy, best, axis=1), axis=1)
    ranked = np.take_along_axis(best, order, axis=1)
    finite = np.isfinite(np.take_along_axis(noisy, ranked, axis=1))
    return np.where(finite, ranked, -1).astype(np.int64)
