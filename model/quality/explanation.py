"""What a score is made of: the level distribution beside the click probability, and the incentive."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from prectr.model.features.batch import Batch, Floats
from prectr.model.features.smoothing import SmoothedRates
from prectr.model.models.online_model import OnlineModel


@dataclass(frozen=True, slots=True)
class Explanation:
    """The scores of a batch of N impressions, and what they are made of.

    log_odds: float64[N], of a click. levels: float64[N, 4], P(level) that the score rests on: as inferred from the
    text, or 1 at the level that the model was told of. given: float64[N, 4], P(click | level), of a model that mixes
    over the levels: the click probability is the sum of levels · given. tau: float64[N, 4], the incentive that is
    added to the log-odds of each of them, where the model has one.
    """

    log_odds: Floats
    levels: Floats
    click_given_level: Floats | None
    incentive: Floats | None
    rates: SmoothedRates

    @property
    def probability(self) -> Floats:
        """float64[N], of a click."""
        return sigmoid(self.log_odds)


@runtime_checkable
class Explainable(Protocol):
    """A model whose score is made of more than a batch says."""

    def explain(self, batch: Batch) -> Explanation:
        """What `explain` gives."""


def explain(model: OnlineModel, batch: Batch) -> Explanation:
    """Score a batch as `model.score` does, and say what the scores are made of; nothing is learned."""
    if isinstance(model, Explainable):
        return model.explain(batch)
    return Explanation(as_numpy(model.score(batch)), batch.level_weights, None, None, batch.rates)


def concat(parts: Sequence[Explanation]) -> Explanation:
    """One after the other, of one model: as if they had been a batch."""
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
    )


def as_numpy(tensor: Tensor) -> Floats:
    """A tensor of any device and graph, as float64."""
    return tensor.detach().cpu().numpy().astype(np.float64)


def sigmoid(log_odds: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow: of both signs, only the exponential of what is not positive is taken."""
    small = np.exp(-np.abs(log_odds))
    probability: Floats = np.where(log_odds >= 0, 1.0, small) / (1.0 + small)
    return probability
