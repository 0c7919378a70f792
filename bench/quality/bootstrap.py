"""How much of an AUC hangs on which users came: a bootstrap over users within a seed."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.quality.scores import Scores
from bench.quality.variants import Contender
from bench.world.ground_truth import Floats, Truth

RESAMPLES: Final = 200


class Resampled(msgspec.Struct, frozen=True, kw_only=True):
    """A contender's AUC with expected labels over users drawn anew, resample by resample.

    The same seed draws the same users for every contender, so differences between two are paired.
    """

    name: str
    track: str
    seed: int
    auc: list[float]


def resample(truth: Truth, scores: Scores, contender: Contender, resamples: int = RESAMPLES) -> Resampled:
    """The AUC of the second half, expected labels, of users drawn with replacement."""
    shown = truth.shown
    late = shown.page >= truth.half
    users, user = np.unique(truth.user[shown.page[late]], return_inverse=True)
    rng = np.random.default_rng([truth.world.settings.seed, 23])
    area = WeightedAuc(scores.shown[late], shown.probability[late])
    found = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(len(users), size=len(users)), minlength=len(users))
        found.append(round(area(drawn[user].astype(np.float64)), 7))
    return Resampled(name=contender.name, track=contender.track, seed=truth.world.settings.seed, auc=found)


class WeightedAuc:
    """AUC of the same scores under changing weights; they are sorted once."""

    def __init__(self, scores: Floats, probability: Floats) -> None:
        """Take scores and expected labels, float64 (n,)."""
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._clicks = probability[self._order]
        self._none = 1.0 - self._clicks
        self._starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

    def __call__(self, weights: NDArray[np.float64]) -> float:
        """The area with each case counted by its weight, float64 (n,); ties count half."""
        weights = weights[self._order]
        clicks = np.add.reduceat(weights * self._clicks, self._starts)
        none = np.add.reduceat(weights * self._none, self._starts)
        below = np.cumsum(none) - none
        return float((clicks * (below + 0.5 * none)).sum() / (clicks.sum() * none.sum()))
