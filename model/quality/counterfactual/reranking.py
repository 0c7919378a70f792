"""An offline estimate: the clicks that the shown items would get in the order of a model.

Under the position-based model, a click at position k on an item that the model would put at k' counts as
θ(k') / θ(k) clicks: inverse propensity weighting (Joachims et al. 2017; for whole rankings Li et al. 2018). Clicks are
counted by (k, k'), so that the propensities θ need not be known before the log has ended.
"""

from typing import Final

import msgspec
import numpy as np

from prectr.model.quality.counterfactual.propensities import JACKKNIFE_GROUPS, POSITIONS, Propensities
from prectr.model.quality.paired import NORMAL_QUANTILE, Interval
from prectr.model.quality.resamples import REPLICATES, poisson_weights
from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import Floats, Ints

MIN_EFFECTIVE_CLICKS: Final = 100.0
MAX_UNKNOWN_SHARE: Final = 0.02
"""Refused if more of the clicks would need a propensity that the log does not identify."""
_EARLY_BATCHES: Final = 256
_EARLY_INTERVAL: Final = 4
"""One in so many of the first batches is measured, so that short logs have an estimate,"""
_INTERVAL: Final = 16
"""and one in so many of the others, which costs a trainer about 2 %."""
_COLUMNS: Final = 1 + 2 * REPLICATES
_CELLS: Final = POSITIONS * POSITIONS


def is_reranked(batch_number: int) -> bool:
    """Whether a batch, after so many others, is measured: it costs one more pass forward."""
    return batch_number % (_EARLY_INTERVAL if batch_number < _EARLY_BATCHES else _INTERVAL) == 0


class RerankingState(msgspec.Struct, frozen=True, array_like=True):
    """clicks, pages: little-endian int64, in the layout of `Reranking`. beyond: clicks further down than estimated."""

    clicks: bytes
    pages: bytes
    beyond: int


class RerankingEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Clicks per page in the model's order of the items shown, against the order shown.

    refused: why there is no estimate; None if there is. pages, clicks: measured. logged: clicks per page as shown.
    estimated: in the model's order. gain: estimated less logged, with `interval` (95 %, the wider of pages and users,
    with the uncertainty of the propensities). effective_clicks: clicks of equal weight that would say as much.
    propensities: what each position is worth, by position, as far as the log tells.
    """

    refused: str | None
    pages: int
    clicks: int
    logged: float | None = None
    estimated: float | None = None
    gain: float | None = None
    interval: Interval | None = None
    effective_clicks: float | None = None
    propensities: dict[str, float] = {}


class Reranking:
    """Clicks by (position shown, position in the model's order), as counted and in each bootstrap replicate."""

    def __init__(self, state: RerankingState | None = None) -> None:
        """Continue from a saved `state`."""
        self._clicks: Ints = np.zeros((_CELLS, _COLUMNS), np.int64)
        self._pages: Ints = np.zeros(_COLUMNS, np.int64)
        self._beyond = 0
        if state is not None:
            self._clicks = np.frombuffer(state.clicks, "<i8").reshape(_CELLS, _COLUMNS).copy()
            self._pages = np.frombuffer(state.pages, "<i8").copy()
            self._beyond = state.beyond

    def add(self, pages: ScoredPages) -> None:
        """Count pages whose logits are the scores of their items as candidates, all at one position."""
        weights = np.ones((len(pages.page_sizes), _COLUMNS), np.int64)
        weights[:, 1:] = poisson_weights(pages.page_keys, pages.user_keys)
        self._pages += weights.sum(axis=0)
        page_of = np.arange(len(pages.page_sizes)).repeat(pages.page_sizes)
        # The best score gets the first of the page's positions; of equal scores, the one shown first.
        new_position = np.empty_like(pages.positions)
        new_position[np.lexsort((pages.positions, -pages.logits, page_of))] = pages.positions[
            np.lexsort((pages.positions, page_of))
        ]
        clicked = pages.labels == 1
        known = clicked & (np.maximum(pages.positions, new_position) <= POSITIONS)
        self._beyond += int((clicked & ~known).sum())
        cell = (pages.positions[known] - 1) * POSITIONS + new_position[known] - 1
        np.add.at(self._clicks, cell, weights[page_of[known]])

    def state(self) -> RerankingState:
        """All counts, to be saved."""
        return RerankingState(self._clicks.astype("<i8").tobytes(), self._pages.astype("<i8").tobytes(), self._beyond)

    def estimate(self, propensities: Propensities) -> RerankingEstimate:
        """Estimate the clicks in the model's order, or say why the log does not allow it."""
        weights = _weights(propensities.theta)
        counts = self._clicks[:, 0].astype(np.float64)
        clicks = int(counts.sum()) + self._beyond
        usable = np.isfinite(weights)
        unknown = self._beyond + counts[~usable].sum()
        weights = np.where(usable, weights, 0.0)
        squares = float((counts * weights**2).sum())
        effective = float((counts * weights).sum()) ** 2 / squares if squares else 0.0
        refused = self._refusal(propensities, clicks, unknown, effective)
        if refused is not None:
            return RerankingEstimate(refused=refused, pages=int(self._pages[0]), clicks=clicks)
        # Pairs of positions that are not identified keep their clicks: they are few.
        gains = np.where(usable, weights - 1.0, 0.0)
        pages = np.maximum(self._pages, 1)
        gain = gains @ self._clicks / pages
        left_out = [np.where(usable, np.nan_to_num(_weights(theta)) - 1.0, 0.0) for theta in propensities.left_out]
        varied = np.array([float(each @ counts) / pages[0] for each in left_out])
        propensity_variance = (JACKKNIFE_GROUPS - 1) * float(np.var(varied))
        sampling = max(float(np.var(part, ddof=1)) for part in np.split(gain[1:], 2))
        half = NORMAL_QUANTILE * float(np.sqrt(sampling + propensity_variance))
        logged = clicks / float(pages[0])
        return RerankingEstimate(
            refused=None,
            pages=int(self._pages[0]),
            clicks=clicks,
            logged=logged,
            estimated=logged + float(gain[0]),
            gain=float(gain[0]),
            interval=Interval(float(gain[0]) - half, float(gain[0]) + half),
            effective_clicks=effective,
            propensities={
                str(position): float(theta)
                for position, theta in enumerate(propensities.theta, 1)
                if np.isfinite(theta)
            },
        )

    def _refusal(self, propensities: Propensities, clicks: int, unknown: float, effective: float) -> str | None:
        if not clicks:
            return "no click was measured"
        if not np.isfinite(propensities.theta).any():
            return (
                "the log does not tell what a position is worth: hardly any query and item were shown at several "
                "positions and clicked"
            )
        if unknown > MAX_UNKNOWN_SHARE * clicks:
            return (
                f"{unknown / clicks:.0%} of the clicks would move from or to positions whose worth the log does not "
                "tell: too few queries and items were shown both there and elsewhere, and clicked"
            )
        if effective < MIN_EFFECTIVE_CLICKS:
            return (
                f"the clicks measured are worth {effective:.0f} of equal weight, fewer than {MIN_EFFECTIVE_CLICKS:.0f}"
            )
        return None


def _weights(theta: Floats) -> Floats:
    """float64[positions²]: θ(k') / θ(k) by (k, k'); 1 on the diagonal, nan where it is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = theta[None, :] / theta[:, None]
    weights[~np.isfinite(weights)] = np.nan
    np.fill_diagonal(weights, 1.0)
    flat: Floats = weights.reshape(-1)
    return flat
