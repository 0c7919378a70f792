"""From scores to metrics: one row per variant and seed, and differences between variants over seeds."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t  # type: ignore[import-untyped]

from bench.quality.bootstrap import BootstrapResult
from bench.quality.ranking_quality import auc, page_gauc
from bench.quality.scores import Scores
from bench.quality.variants import Variant
from bench.world.ground_truth import Floats, GroundTruth, Impressions
from prectr.model.quality.quality import ACTIVE, LOW_ACTIVITY
from prectr.stream.simulator.clicks import POSITION_EXPONENT

TOP_K: Final = 10
"""Ranks that count in the metrics of a ranking."""

MIN_RESOLVED_STEP: Final = 0.001
"""Smaller AUC differences are unresolved, whatever their interval."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one variant in one world; a metric without scores is null.

    model: with settings that differ from the defaults, such as `prectr-v2 debias=hinge`.
    Prequential metrics of the second half with real clicks, at the position shown: auc, gauc (page), log_loss (mean,
    nats), calibration (mean predicted over observed), auc_new, auc_low, auc_active (users with fewer than 3, 3 to 9,
    10 and more clicks before the page).
    With expected labels (an impression with true probability p has weight p as a click, 1 − p as no click):
    auc_expected, gauc_expected; and over 5 candidates per page that were not shown, at position 1: auc_unexposed,
    gauc_unexposed, calibration_unexposed (mean predicted over mean true), auc_never_shown (candidates that the query
    had never shown).
    Of the ranking of all candidates of every 16th page: expected_clicks of its top 10 (Σ p · rank^-0.7), ndcg (at
    10, gain p), ndcg_level (at 10, gain 2^(level − 1) − 1), share_level_1 (in its top 10). Ties count as their mean.
    auc_whole: over the whole log with real clicks, as in the report of a replay.
    share_of_reference: (auc − position alone) / (reference learner − position alone); share_above_level: the same
    relative to position × level.
    impressions_per_second: impressions per second of wall time in training. code, stage_one: shortened SHA-256 of the
    code that made the scores, and of the stage-one encoder.
    """

    model: str
    without: tuple[str, ...]
    track: str
    seed: int
    auc: float
    gauc: float
    log_loss: float
    calibration: float
    auc_new: float
    auc_low: float
    auc_active: float
    auc_never_shown: float | None = None
    auc_unexposed: float | None = None
    gauc_unexposed: float | None = None
    calibration_unexposed: float | None = None
    expected_clicks: float | None = None
    ndcg: float | None = None
    share_level_1: float | None = None
    share_of_reference: float | None = None
    impressions_per_second: float | None = None
    auc_expected: float
    gauc_expected: float
    auc_whole: float | None = None
    ndcg_level: float | None = None
    share_above_level: float | None = None
    code: str = ""
    stage_one: str = ""

    @property
    def name(self) -> str:
        """Display name."""
        return Variant(model=self.model, without=self.without).name


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Difference of a metric between two variants, paired by seed.

    interval: 95 %, Student's t over the seeds; null with a single seed. user_interval: 95 % interval of the same mean
    under a bootstrap over the users of each seed; for `auc_expected` only.
    """

    better: str
    other: str
    track: str
    metric: str
    seeds: int
    mean: float
    interval: tuple[float, float] | None
    user_interval: tuple[float, float] | None = None

    @property
    def resolved(self) -> bool:
        """Whether an AUC difference exceeds noise: at least 0.001, and its interval over seeds excludes zero."""
        return (
            self.interval is not None
            and abs(self.mean) >= MIN_RESOLVED_STEP
            and self.interval[0] * self.interval[1] > 0
        )


# --- metrics of one set of scores -------------------------------------------------------------------------------------


def measure_row(truth: GroundTruth, scores: Scores, variant: Variant) -> Row:
    """All metrics of a variant's scores, except its shares of the reference."""
    shown = truth.shown
    late = shown.page >= truth.half
    clicked = shown.clicked.astype(np.float64)
    activity = truth.activity[shown.page]
    new, active = activity < LOW_ACTIVITY, activity >= ACTIVE
    predicted = _sigmoid(scores.shown[late])

    def auc_of(mask: NDArray[np.bool_]) -> float:
        return auc(scores.shown[mask], clicked[mask])

    ranking_values = {} if scores.candidates is None else ranking_metrics(truth.candidates, scores.candidates)
    row = Row(
        model=variant.label,
        without=variant.without,
        track=variant.track,
        seed=truth.world.settings.seed,
        auc=auc_of(late),
        gauc=_gauc(shown, scores.shown, clicked, late),
        log_loss=_log_loss(scores.shown[late], clicked[late]),
        calibration=float(predicted.sum() / clicked[late].sum()),
        auc_new=auc_of(late & new),
        auc_low=auc_of(late & ~new & ~active),
        auc_active=auc_of(late & active),
        auc_expected=auc(scores.shown[late], shown.probability[late]),
        gauc_expected=_gauc(shown, scores.shown, shown.probability, late),
        auc_whole=None if np.isnan(scores.shown).any() else auc(scores.shown, clicked),
        impressions_per_second=len(shown.page) / scores.seconds if scores.seconds else None,
        code=scores.code[:12],
    )
    candidate_values = {} if scores.unexposed is None else unexposed_metrics(truth.unexposed, scores.unexposed)
    return msgspec.structs.replace(row, **candidate_values, **ranking_values)


def unexposed_metrics(slice_: Impressions, scores: Floats) -> dict[str, float]:
    """Metrics of candidates that were not shown, against their true probabilities."""
    true, never = slice_.probability, slice_.shown_before == 0
    everything = np.ones(len(scores), dtype=np.bool_)
    return {
        "auc_unexposed": auc(scores, true),
        "auc_never_shown": auc(scores[never], true[never]),
        "gauc_unexposed": _gauc(slice_, scores, true, everything),
        "calibration_unexposed": float(_sigmoid(scores).sum() / true.sum()),
    }


def ranking_metrics(candidates: Impressions, scores: Floats) -> dict[str, float]:
    """Metrics of the rankings of all candidates, averaged over pages."""
    totals = np.zeros(4)
    starts = candidates.first.tolist()
    for start, end in pairwise(starts):
        totals += _page_ranking_metrics(
            scores[start:end], candidates.probability[start:end], candidates.level[start:end]
        )
    clicks, ndcg, ndcg_level, level_1 = (totals / len(candidates.pages)).tolist()
    return {"expected_clicks": clicks, "ndcg": ndcg, "ndcg_level": ndcg_level, "share_level_1": level_1}


def _page_ranking_metrics(scores: Floats, true: Floats, level: NDArray[np.uint8]) -> Floats:
    """Expected clicks, NDCG by true probability, NDCG by level, and share of level 1, float64 (4,)."""
    order = np.argsort(-scores, kind="stable")
    _, tie_group = np.unique(-scores[order], return_inverse=True)
    size = np.bincount(tie_group)
    top = min(TOP_K, len(scores))
    ranks = np.arange(1, top + 1)
    examined, discount = ranks.astype(np.float64) ** POSITION_EXPONENT, 1.0 / np.log2(ranks + 1.0)

    def by_rank(values: Floats) -> Floats:
        """Values by rank; ties take their mean, the expectation over the orders of the tied items."""
        return np.asarray((np.bincount(tie_group, values[order]) / size)[tie_group][:top])

    def ndcg(gain: Floats) -> float:
        ideal = np.sort(gain)[::-1][:top] @ discount
        return float(by_rank(gain) @ discount / ideal) if ideal > 0 else 1.0

    by_level = 2.0 ** (level.astype(np.float64) - 1.0) - 1.0
    level_1 = by_rank((level == 1).astype(np.float64)).mean()
    return np.array([by_rank(true) @ examined, ndcg(true), ndcg(by_level), level_1])


def _gauc(impressions: Impressions, scores: Floats, labels: Floats, mask: NDArray[np.bool_]) -> float:
    present = impressions.table(mask)
    kept = present.any(axis=1)
    # Absent slots have no score and no weight; 0 compares where NaN would not.
    table = np.nan_to_num(impressions.table(scores))
    return page_gauc(table[kept], impressions.table(labels)[kept], present[kept])


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))


def _log_loss(logits: Floats, labels: Floats) -> float:
    return float((np.logaddexp(0.0, logits) - labels * logits).mean())


# --- differences between rows -----------------------------------------------------------------------------------------


def add_reference_shares(rows: Sequence[Row], reference: str) -> list[Row]:
    """Add the shares of the reference learner's gain over the baselines to the rows of one seed."""
    auc_of = {row.name: row.auc for row in rows}
    upper, lower, by_level = auc_of[reference], auc_of["position alone"], auc_of["position × level"]
    return [
        msgspec.structs.replace(
            row,
            share_of_reference=(row.auc - lower) / (upper - lower),
            share_above_level=(row.auc - by_level) / (upper - by_level),
        )
        for row in rows
    ]


def paired_difference(
    rows: Sequence[Row], better: str, other: str, metric: str, resampled: Sequence[BootstrapResult] = ()
) -> Difference | None:
    """Difference of a metric between two variants over the seeds that both have; None if either lacks it.

    rows, resampled: of one track.
    """
    values: Mapping[str, dict[int, float]] = {
        name: {row.seed: getattr(row, metric) for row in rows if row.name == name} for name in (better, other)
    }
    seeds = sorted(values[better].keys() & values[other].keys())
    if not seeds or any(values[name][seed] is None for name in values for seed in seeds):
        return None
    differences = np.array([values[better][seed] - values[other][seed] for seed in seeds])
    mean, interval = float(differences.mean()), None
    if len(seeds) > 1:
        half = float(student_t.ppf(0.975, len(seeds) - 1) * differences.std(ddof=1) / np.sqrt(len(seeds)))
        interval = (mean - half, mean + half)
    return Difference(
        better=better,
        other=other,
        track=rows[0].track,
        metric=metric,
        seeds=len(seeds),
        mean=mean,
        interval=interval,
        user_interval=_bootstrap_interval(resampled, better, other, seeds) if metric == "auc_expected" else None,
    )


def _bootstrap_interval(
    resampled: Sequence[BootstrapResult], better: str, other: str, seeds: Sequence[int]
) -> tuple[float, float] | None:
    """95 % bootstrap interval, over the users of each seed, of the mean difference over seeds."""
    bootstraps = {(one.name, one.seed): np.array(one.auc) for one in resampled}
    if any((name, seed) not in bootstraps for name in (better, other) for seed in seeds):
        return None
    means = np.mean([bootstraps[better, seed] - bootstraps[other, seed] for seed in seeds], axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
