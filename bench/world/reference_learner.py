"""The reference learner: an online learner that knows the form and the constants of the simulated world.

It knows every item's taste v_i and learns s_u, t_u, β_q and pop_i by an extended Kalman filter on the Bernoulli
likelihood (reconstruction): a block of five parameters per user, one per query, one per item and one per item group,
each block with its own covariance.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prectr.stream.simulator.catalogue import item_groups
from prectr.stream.simulator.clicks import (
    BETA_NOISE,
    GROUP_SHARE,
    INTERCEPT,
    ITEM_POPULARITY_SIGMA,
    KIND_BETA,
    KIND_SHARE,
    MIDDLE_LEVEL,
    POSITION_EXPONENT,
    STRICTNESS_WEIGHT,
    TASTE_WEIGHT,
)
from prectr.stream.simulator.users import TASTE_DIMENSIONS
from prectr.stream.simulator.world import World

BETA_MEAN: Final = float(np.dot(KIND_SHARE, KIND_BETA))
BETA_VARIANCE: Final = float(np.dot(KIND_SHARE, np.square(KIND_BETA)) - BETA_MEAN**2 + BETA_NOISE**2)


@dataclass(frozen=True, slots=True)
class LearnedParts:
    """Which parameters are learned; the others stay at their prior means."""

    user: bool = True
    query: bool = True
    group: bool = True


class ReferenceLearner:
    """Scores pages, and learns from their clicks."""

    def __init__(self, world: World, learns: LearnedParts) -> None:
        groups = item_groups(world.catalogue)
        users, items, queries = len(world.users.strictness), len(world.catalogue.item_ids), len(world.catalogue.queries)
        self._learns = learns
        self._group = groups
        self._taste = world.click_weights.taste
        self._user = np.zeros((users, 1 + TASTE_DIMENSIONS))
        self._user_cov = np.tile(np.eye(1 + TASTE_DIMENSIONS), (users, 1, 1)) if learns.user else None
        self._beta = np.full(queries, BETA_MEAN)
        self._beta_var = np.full(queries, BETA_VARIANCE if learns.query else 0.0)
        item_share = 1.0 - GROUP_SHARE if learns.group else 1.0
        self._pop = np.zeros(items)
        self._pop_var = np.full(items, item_share * ITEM_POPULARITY_SIGMA**2)
        self._group_pop = np.zeros(int(groups.max()) + 1)
        self._group_var = np.full(len(self._group_pop), (1.0 - item_share) * ITEM_POPULARITY_SIGMA**2)

    def _user_inputs(self, item: NDArray[np.int64], level: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Inputs to the user's five parameters, float64 (n, 5)."""
        step = level - MIDDLE_LEVEL
        return np.concatenate([STRICTNESS_WEIGHT * step[:, None], TASTE_WEIGHT * self._taste[item]], axis=1)

    def score(
        self,
        user: int,
        query: int,
        item: NDArray[np.int64],
        level: NDArray[np.uint8],
        position: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Click probabilities, float64 (n,), averaged over the uncertainty of z (MacKay 1992)."""
        step, inputs = level - MIDDLE_LEVEL, self._user_inputs(item, level)
        group = self._group[item]
        z = INTERCEPT + self._beta[query] * step + inputs @ self._user[user] + self._pop[item] + self._group_pop[group]
        variance = self._beta_var[query] * step**2 + self._pop_var[item] + self._group_var[group]
        if self._user_cov is not None:
            variance = variance + np.einsum("ni,ij,nj->n", inputs, self._user_cov[user], inputs)
        attraction = 1.0 / (1.0 + np.exp(-z / np.sqrt(1.0 + np.pi * variance / 8.0)))
        return np.asarray(position.astype(np.float64) ** POSITION_EXPONENT * attraction)

    def learn(
        self, user: int, query: int, item: NDArray[np.int64], level: NDArray[np.uint8], clicked: NDArray[np.bool_]
    ) -> None:
        """Update on a page's clicks, from the top down; items are at positions 1, 2, …."""
        steps = (level - MIDDLE_LEVEL).tolist()
        inputs = self._user_inputs(item, level)
        mean = self._user[user]
        cov = self._user_cov[user] if self._user_cov is not None else None
        for position, (i, step, click) in enumerate(zip(item.tolist(), steps, clicked.tolist(), strict=True), start=1):
            group, h = self._group[i], inputs[position - 1]
            z = INTERCEPT + self._beta[query] * step + float(h @ mean) + self._pop[i] + self._group_pop[group]
            slope, information = _bernoulli(float(z), position**POSITION_EXPONENT, click)
            beta_gain = self._beta_var[query] * step
            gain = cov @ h if cov is not None else None
            variance = beta_gain * step + self._pop_var[i] + self._group_var[group]
            if gain is not None:
                variance += float(h @ gain)
            shrink = information / (1.0 + information * variance)
            forward = slope / (1.0 + information * variance)
            if gain is not None and cov is not None:
                mean += forward * gain
                cov -= shrink * gain[:, None] * gain
            self._beta[query] += forward * beta_gain
            self._beta_var[query] -= shrink * beta_gain**2
            self._pop[i] += forward * self._pop_var[i]
            self._pop_var[i] -= shrink * self._pop_var[i] ** 2
            self._group_pop[group] += forward * self._group_var[group]
            self._group_var[group] -= shrink * self._group_var[group] ** 2


def _bernoulli(z: float, examined: float, click: bool) -> tuple[float, float]:
    """Gradient and Fisher information in z of the likelihood of a click with probability examined · σ(z)."""
    attraction = 1.0 / (1.0 + np.exp(-z))
    probability = examined * attraction
    change = probability * (1.0 - attraction)
    slope = change / probability if click else -change / (1.0 - probability)
    return slope, change**2 / (probability * (1.0 - probability))
