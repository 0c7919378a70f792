"""Ranking metrics on graded pairs: AUC, AUC within queries, NDCG@10, with bootstrap intervals over queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.quality.ranking_quality import auc

RESAMPLES: Final = 1_000
_TOP_K: Final = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Relevance:
    """Ranking metrics of scores on graded pairs.

    auc: grade 3 against 0, over all pairs. within_query: the same within each query that has both, mean over queries.
    ndcg: NDCG@10 with gain 2^grade − 1, mean over queries with a grade above 0.
    """

    auc: Estimate
    within_query: Estimate
    ndcg: Estimate


def score_relevance(
    scores: NDArray[np.float64], grades: NDArray[np.int64], queries: Sequence[str], *, seed: int = 1
) -> Relevance:
    """Evaluate scores float64[n] against grades int64[n], 0 to 3; intervals by a bootstrap over queries."""
    groups = group_by_query(queries)
    draws = _resamples(len(groups), seed)
    within = np.array([_extreme_grades_auc(scores[indices], grades[indices]) for indices in groups])
    ndcg = np.array([ndcg_at_10(scores[places], grades[places]) for places in groups])
    pooled = [pooled_auc(scores, grades, groups, draw) for draw in draws]
    return Relevance(
        _with_interval(pooled_auc(scores, grades, groups, np.arange(len(groups))), pooled),
        _with_interval(float(np.nanmean(within)), [float(np.nanmean(within[draw])) for draw in draws]),
        _with_interval(float(np.nanmean(ndcg)), [float(np.nanmean(ndcg[draw])) for draw in draws]),
    )


def auc_difference(
    one: NDArray[np.float64], other: NDArray[np.float64], grades: NDArray[np.int64], queries: Sequence[str]
) -> Estimate:
    """Difference in AUC of two scores, one − other, with a bootstrap paired over queries."""
    groups = group_by_query(queries)
    everything = np.arange(len(groups))

    def difference(draw: NDArray[np.int64]) -> float:
        return pooled_auc(one, grades, groups, draw) - pooled_auc(other, grades, groups, draw)

    return _with_interval(difference(everything), [difference(draw) for draw in _resamples(len(groups), seed=1)])


def group_by_query(queries: Sequence[str]) -> list[NDArray[np.int64]]:
    """Indices of each query's pairs."""
    _, query_index = np.unique(np.asarray(queries), return_inverse=True)
    order = np.argsort(query_index, kind="stable")
    return np.split(order, np.cumsum(np.bincount(query_index))[:-1])


def pooled_auc(
    scores: NDArray[np.float64], grades: NDArray[np.int64], groups: list[NDArray[np.int64]], draw: NDArray[np.int64]
) -> float:
    """AUC of grade 3 against 0 over the pairs of the drawn groups."""
    indices = np.concatenate([groups[index] for index in draw])
    return _extreme_grades_auc(scores[indices], grades[indices])


def ndcg_at_10(scores: NDArray[np.float64], grades: NDArray[np.int64]) -> float:
    """NDCG@10 of one query's pairs, gain 2^grade − 1, ties in input order; NaN if no grade is above 0."""
    gain = 2.0**grades - 1.0
    discount = 1.0 / np.log2(np.arange(2, _TOP_K + 2))
    best = np.sort(gain)[::-1][:_TOP_K]
    achieved = gain[np.argsort(-scores, kind="stable")][:_TOP_K]
    ideal = float(best @ discount[: len(best)])
    return float(achieved @ discount[: len(achieved)]) / ideal if ideal > 0 else float("nan")


def _extreme_grades_auc(scores: NDArray[np.float64], grades: NDArray[np.int64]) -> float:
    kept = (grades == 0) | (grades == 3)
    return auc(scores[kept], (grades[kept] == 3).astype(np.float64))


def _resamples(queries: int, seed: int) -> NDArray[np.int64]:
    """int64[resamples, queries]."""
    return np.random.default_rng([seed, 3]).integers(queries, size=(RESAMPLES, queries))


def _with_interval(value: float, resampled: list[float]) -> Estimate:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
