"""The parts of a score: the level distribution, the conditional click probabilities, and the incentive."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from prectr.model.features.batch import Batch, Floats
from prectr.model.features.level_prior import Bools
from prectr.model.features.smoothing import SmoothedRates
from prectr.model.models.online_model import OnlineModel


@dataclass(frozen=True, slots=True)
class Explanation:
    """The scores of a batch of N impressions, with their parts.

    log_odds: float64[N], of a click.
    levels: float64[N, 4], P(level) as used by the score: inferred from the text, or one-hot at the supplied level.
    click_given_level: float64[N, 4], P(click | level); the click probability is Σ levels · click_given_level. None
        if the model is not a mixture over levels.
    incentive: float64[N, 4], τ, added to the log-odds of a click at each level; None if the model has none.
    rates: the smoothed click rates that the model read.
    learned_levels: bool[4], the levels that the model has learned from; candidates of others borrow from these.
    """

    log_odds: Floats
    levels: Floats
    click_given_level: Floats | None
    incentive: Floats | None
    rates: SmoothedRates
    learned_levels: Bools

    @property
    def probability(self) -> Floats:
        """float64[N]: click probability."""
        return sigmoid(self.log_odds)


@runtime_checkable
class Explainable(Protocol):
    """A model that can report the parts of its score."""

    def explain(self, batch: Batch) -> Explanation:
        """Score a batch, and return the parts of the scores."""


def explain(model: OnlineModel, batch: Batch) -> Explanation:
    """Score a batch as `model.score` does, and return the parts of the scores."""
    if isinstance(model, Explainable):
        return model.explain(batch)
    return Explanation(
        to_numpy(model.score(batch)), batch.level_weights, None, None, batch.rates, model.learned_levels()
    )


def concat(parts: Sequence[Explanation]) -> Explanation:
    """Concatenate explanations of one model, as if of one batch."""
    first = parts[0]
    rates_by_name = {field.name: [getattr(part.rates, field.name) for part in parts] for field in fields(SmoothedRates)}
    exposed = rates_by_name.pop("exposed_level_shares")[0]
    return Explanation(
        log_odds=np.concatenate([part.log_odds for part in parts]),
        levels=np.concatenate([part.levels for part in parts]),
        click_given_level=None
        if first.click_given_level is None
        else np.concatenate([part.click_given_level for part in parts if part.click_given_level is not None]),
        incentive=None
        if first.incentive is None
        else np.concatenate([part.incentive for part in parts if part.incentive is not None]),
        rates=SmoothedRates(
            exposed_level_shares=exposed, **{name: np.concatenate(rates) for name, rates in rates_by_name.items()}
        ),
        learned_levels=first.learned_levels,
    )


def to_numpy(tensor: Tensor) -> Floats:
    """Copy a tensor, detached, to a float64 array."""
    return tensor.detach().cpu().numpy().astype(np.float64)


def sigmoid(log_odds: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow: exp is only taken of values that are not positive."""
    small = np.exp(-np.abs(log_odds))
    probability: Floats = np.where(log_odds >= 0, 1.0, small) / (1.0 + small)
    return probability
