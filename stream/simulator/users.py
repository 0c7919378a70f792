"""Users: their activity, strictness and taste."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAGES_PER_USER: Final = 2.4
ACTIVITY_SIGMA: Final = 1.4
TASTE_DIMENSIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Users:
    """The U users of a world, including those who happen not to appear in the log.

    Attributes:
        cumulative: float64 [U], cumulative probability that a page is by this user or an earlier one.
        strictness: float64 [U], s_u ~ N(0, 1).
        taste: float64 [U, 4], t_u ~ N(0, I).
    """

    cumulative: NDArray[np.float64]
    strictness: NDArray[np.float64]
    taste: NDArray[np.float64]

    def draw(self, pages: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the user of each page, int64 [pages]."""
        return np.searchsorted(self.cumulative, rng.random(pages), side="right").astype(np.int64)


def draw_users(seed: int, users: int) -> Users:
    """Draw users whose shares of the pages are log-normal (σ 1.4), so that new users keep arriving.

    With 2.4 pages per user on average, about 27 % of all pages are by users with fewer than 4 pages.
    """
    rng = np.random.default_rng([seed, 2])
    cumulative = np.cumsum(rng.lognormal(0.0, ACTIVITY_SIGMA, users))
    return Users(
        cumulative / cumulative[-1],
        rng.normal(size=users),
        rng.normal(size=(users, TASTE_DIMENSIONS)),
    )
