"""The click model: the logit of attraction and the click probability at a position."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.stream.simulator.catalogue import Catalogue, item_groups
from prectr.stream.simulator.users import TASTE_DIMENSIONS, Users

INTERCEPT: Final = -1.9
POSITION_EXPONENT: Final = -0.7
STRICTNESS_WEIGHT: Final = 0.6
TASTE_WEIGHT: Final = 0.6
MIDDLE_LEVEL: Final = 2.5

KINDS: Final = ("strict", "ordinary", "exploring")
KIND_BETA: Final = (1.3, 0.7, 0.1)
KIND_SHARE: Final = (0.45, 0.35, 0.20)
BETA_NOISE: Final = 0.15

ITEM_POPULARITY_SIGMA: Final = 0.5
ITEM_TASTE_SIGMA: Final = 0.5
GROUP_SHARE: Final = 0.5
"""Share of the variance of an item's taste and popularity that comes from its group."""

DRIFT_SHARE: Final = 0.30
"""Share of the queries whose kind changes in the middle of the log, with drift."""

LOGIT_COMPONENTS: Final = ("z_relevance", "z_strictness", "z_taste", "z_popularity")
"""The four terms of z besides the intercept, in the order of the last axis of `logit_components`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickModelWeights:
    """Weights of the click model for Q queries and I items.

    Attributes:
        kind, second_half_kind: int64 [Q], index in `KINDS`, in the first and the second half of the log.
        beta, second_half_beta: float64 [Q], the queries' relevance preference β_q in each half.
        taste: float64 [I, 4], v_i.
        item_popularity: float64 [I], pop_i.
    """

    kind: NDArray[np.int64]
    second_half_kind: NDArray[np.int64]
    beta: NDArray[np.float64]
    second_half_beta: NDArray[np.float64]
    taste: NDArray[np.float64]
    item_popularity: NDArray[np.float64]


def draw_click_weights(seed: int, catalogue: Catalogue, *, drift: bool) -> ClickModelWeights:
    """Draw the preferences of queries, and the taste and popularity of items, half of their variance by group."""
    rng = np.random.default_rng([seed, 3])
    queries = len(catalogue.queries)
    kind = rng.choice(len(KINDS), queries, p=KIND_SHARE)
    noise = rng.normal(0.0, BETA_NOISE, queries)
    groups = item_groups(catalogue)
    taste = _draw_by_group(groups, TASTE_DIMENSIONS, ITEM_TASTE_SIGMA, rng)
    item_popularity = _draw_by_group(groups, 1, ITEM_POPULARITY_SIGMA, rng)[:, 0]
    second_half_kind = _draw_drift(kind, rng) if drift else kind
    beta = np.asarray(KIND_BETA)
    return ClickModelWeights(
        kind=kind,
        second_half_kind=second_half_kind,
        beta=beta[kind] + noise,
        second_half_beta=beta[second_half_kind] + noise,
        taste=taste,
        item_popularity=item_popularity,
    )


def _draw_by_group(
    groups: NDArray[np.int64], width: int, sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    shared = rng.normal(0.0, sigma * np.sqrt(GROUP_SHARE), (int(groups.max()) + 1, width))
    return shared[groups] + rng.normal(0.0, sigma * np.sqrt(1.0 - GROUP_SHARE), (len(groups), width))


def _draw_drift(kind: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the kinds in the second half of the log: 30 % of the queries change theirs."""
    queries = len(kind)
    changed = rng.permutation(queries)[: round(DRIFT_SHARE * queries)]
    second_half = kind.copy()
    for q in changed.tolist():
        share = np.asarray(KIND_SHARE)
        share[kind[q]] = 0.0
        second_half[q] = rng.choice(len(KINDS), p=share / share.sum())
    return second_half


def logit_components(
    weights: ClickModelWeights,
    users: Users,
    *,
    user: NDArray[np.int64],
    query: NDArray[np.int64],
    item: NDArray[np.int64],
    level: NDArray[np.uint8],
    second_half: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the four terms of z, float64 [n, 4], in the order of `LOGIT_COMPONENTS`; arguments have shape [n].

    z = −1.9 + β_q·(level − 2.5) + 0.6·s_u·(level − 2.5) + 0.6·t_u·v_i + pop_i.

    Args:
        second_half: whether the page is in the second half of the log.
    """
    step = level - MIDDLE_LEVEL
    beta = np.where(second_half, weights.second_half_beta[query], weights.beta[query])
    taste = np.einsum("nk,nk->n", users.taste[user], weights.taste[item])
    return np.stack(
        [
            beta * step,
            STRICTNESS_WEIGHT * users.strictness[user] * step,
            TASTE_WEIGHT * taste,
            weights.item_popularity[item],
        ],
        axis=1,
    )


def click_probability(components: NDArray[np.float64], position: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the true click probability, position^-0.7 · σ(z), float64 [n].

    Args:
        components: [n, 4], as from `logit_components`.
        position: [n], from 1.
    """
    attraction = 1.0 / (1.0 + np.exp(-(INTERCEPT + components.sum(axis=1))))
    return np.asarray(position.astype(np.float64) ** POSITION_EXPONENT * attraction)
