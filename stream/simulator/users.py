"""Users: how often they come, how strict they are, and what they like."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAGES_PER_USER: Final = 2.4
ACTIVITY_SIGMA: Final = 1.4
TASTE_DIMENSIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Users:
    """The users of a world, U of them, those who happen never to come among them.

    cumulative: float64 (U,), cumulative chance that a page is by the user or one before it.
    strictness: float64 (U,), s_u ~ N(0, 1). taste: float64 (U, 4), t_u ~ N(0, I).
    """

    cumulative: NDArray[np.float64]
    strictness: NDArray[np.float64]
    taste: NDArray[np.float64]

    def draw(self, pages: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The user of each page, int64 (pages,)."""
        return np.searchsorted(self.cumulative, rng.random(pages), side="right").astype(np.int64)


def draw_users(seed: int, users: int) -> Users:
    """Draw users whose share of the pages is log-normal (σ 1.4), so that they keep arriving all the time.

    With 2.4 pages a user on the average, about 27 % of all pages are by users with fewer than 4 pages.
    """
    rng = np.random.default_rng([seed, 2])
    cumulative = np.cumsum(rng.lognormal(0.0, ACTIVITY_SIGMA, users))
    return Users(
        cumulative / cumulative[-1],
        rng.normal(size=users),
        rng.normal(size=(users, TASTE_DIMENSIONS)),
    )
