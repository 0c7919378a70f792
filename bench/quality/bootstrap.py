"""Sensitivity of an AUC to the sample of users: a bootstrap over users within a seed."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.quality.scores import Scores
from bench.quality.variants import Variant
from bench.world.ground_truth import Floats, GroundTruth

RESAMPLES: Final = 200


class BootstrapResult(msgspec.Struct, frozen=True, kw_only=True):
    """AUC of a variant with expected labels, one value per bootstrap resample of the users.

    The same seed draws the same users for every variant, so differences between variants are paired.
    """

    name: str
    track: str
    seed: int
    auc: list[float]


def bootstrap_auc(truth: GroundTruth, scores: Scores, variant: Variant, resamples: int = RESAMPLES) -> BootstrapResult:
    """AUC of the second half with expected labels, over users drawn with replacement."""
    shown = truth.shown
    late = shown.page >= truth.half
    users, user = np.unique(truth.user[shown.page[late]], return_inverse=True)
    rng = np.random.default_rng([truth.world.settings.seed, 23])
    weighted_auc = WeightedAuc(scores.shown[late], shown.probability[late])
    found = []
    for _ in range(resamples):
        draws = np.bincount(rng.integers(len(users), size=len(users)), minlength=len(users))
        found.append(round(weighted_auc(draws[user].astype(np.float64)), 7))
    return BootstrapResult(name=variant.name, track=variant.track, seed=truth.world.settings.seed, auc=found)


class WeightedAuc:
    """AUC of fixed scores under varying weights; sorts the scores once."""

    def __init__(self, scores: Floats, probability: Floats) -> None:
        """Arguments: scores and expected labels, float64 (n,)."""
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._clicks = probability[self._order]
        self._non_clicks = 1.0 - self._clicks
        self._starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

    def __call__(self, weights: NDArray[np.float64]) -> float:
        """Area under the curve with case weights, float64 (n,); ties count half."""
        weights = weights[self._order]
        clicks = np.add.reduceat(weights * self._clicks, self._starts)
        non_clicks = np.add.reduceat(weights * self._non_clicks, self._starts)
        below = np.cumsum(non_clicks) - non_clicks
        return float((clicks * (below + 0.5 * non_clicks)).sum() / (clicks.sum() * non_clicks.sum()))
