"""The contents of `report.json`, and the parts it is built from.

Pages are result pages, impressions are items shown on them, clicks are clicked impressions.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from prectr.model.features.feature_summary import FeaturesSummary
from prectr.model.quality.counterfactual.reranking import RerankingEstimate
from prectr.model.quality.learning_trend import LearningTrend
from prectr.model.quality.paired import PairedDifference
from prectr.model.quality.quality import QualitySummary, SecondHalfStats, StatsBySegment, TimelinePoint
from prectr.model.quality.query_losses import RankedQuery
from prectr.model.quality.sketch import CalibrationPoint, ImpressionStats, QualityStats
from prectr.ops.report.levels import LevelReport
from prectr.ops.report.log.health import LogOrder, log_warnings
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.replay.rejections import RejectionKind

ByLevel = tuple[int, int, int, int]
"""A count for each relevance level, 1 to 4."""


class QueryPreference(msgspec.Struct, frozen=True, kw_only=True):
    """Impressions and clicks of a query by relevance level, over the whole log."""

    query: str
    impressions: ByLevel
    clicks: ByLevel


class BaselineReport(msgspec.Struct, frozen=True, kw_only=True):
    """The prequential quality of a baseline; log_loss and calibration are null if its scores are no probabilities."""

    model: str
    auc: float | None
    gauc: float | None
    log_loss: float | None
    calibration: float | None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a run, besides the quality of its models.

    pages: emitted pages. impressions: items on them. outcomes: of all records. dead_letters: by reason. late_records:
    records behind the merged watermark. rejections: kinds of dead letters, the most frequent first. log_order: how the
    log runs in time; None live. baselines: what the log gives away without a model. differences: between all of models
    and baselines. top_queries: those with the most pages, in descending order. seconds:
    wall-clock time, including the earlier parts of a resumed run. config: all settings, by name.
    """

    pages: int
    impressions: int
    outcomes: Outcomes
    dead_letters: dict[str, int]
    late_records: int
    top_queries: list[QueryPreference]
    examples_sha256: str
    aggregates_sha256: str
    seconds: float
    config: dict[str, Any]
    rejections: list[RejectionKind] = []
    log_order: LogOrder | None = None
    baselines: list[BaselineReport] = []
    differences: list[PairedDifference] = []


class ModelReport(QualitySummary, frozen=True, kw_only=True):
    """The quality of a model.

    weights_sha256: null for the oracle, which has no weights. inferred_levels: of a model that infers relevance from
    text; null for others, and before the first batch. features: the custom features of the log; null for the oracle.
    most_lost, worst_queries: the queries that lose the most, and those with the lowest page AUC. trend: whether it
    still gets better; null with too few clicks. reranked: offline estimate of the clicks in the model's order; null for
    the oracle and live.
    """

    model: str
    weights_sha256: str | None
    inferred_levels: LevelReport | None = None
    features: FeaturesSummary | None = None
    most_lost: tuple[RankedQuery, ...] = ()
    worst_queries: tuple[RankedQuery, ...] = ()
    trend: LearningTrend | None = None
    reranked: RerankingEstimate | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of `report.json`; undefined numbers are null.

    The quality at the top level (model to calibration_curve, weights_sha256) is that of the first of `models`. Without
    models (`--no-train`) it is null, and pages, impressions and clicks are those emitted by the stages.
    first_close, last_close: close time of the first and last page, in ms. seconds: wall-clock time. pages_per_second:
    pages divided by it. rejections: kinds of dead letters, the most frequent first. log_order: how the log runs in
    time; null live. baselines: position alone, popularity and logged order; empty live. differences: paired, between
    all of models and baselines. warnings: what makes the result mean less than it seems to, in sentences; empty if all
    is well.
    """

    model: str | None
    pages: int
    impressions: int
    clicks: int
    first_close: int | None
    last_close: int | None
    auc: float | None
    gauc: float | None
    log_loss: float | None
    normalized_entropy: float | None
    calibration: float | None
    segments: StatsBySegment | None
    second_half: SecondHalfStats | None
    levels: dict[str, ImpressionStats]
    positions: dict[str, ImpressionStats]
    timeline: list[TimelinePoint]
    calibration_curve: list[CalibrationPoint]
    models: list[ModelReport]
    outcomes: Outcomes
    dead_letters: dict[str, int]
    late_records: int
    top_queries: list[QueryPreference]
    examples_sha256: str
    aggregates_sha256: str
    weights_sha256: str | None
    seconds: float
    pages_per_second: float | None
    config: dict[str, Any]
    rejections: list[RejectionKind]
    log_order: LogOrder | None
    baselines: list[BaselineReport]
    differences: list[PairedDifference]
    warnings: list[str]


def model_report(
    model: str,
    quality: QualitySummary,
    weights_sha256: str | None,
    inferred_levels: LevelReport | None = None,
    features: FeaturesSummary | None = None,
) -> ModelReport:
    """Build the report of a model from `Quality.summary()`."""
    return ModelReport(
        model=model,
        weights_sha256=weights_sha256,
        inferred_levels=inferred_levels,
        features=features,
        **_fields(quality),
    )


def build_report(summary: RunSummary, models: Sequence[ModelReport]) -> Report:
    """Build the report of a run. models: the first one supplies the quality at the top level."""
    summary_fields = _fields(summary)
    if models:
        quality = _fields(models[0])
        for own in ("inferred_levels", "features", "most_lost", "worst_queries", "trend", "reranked"):
            del quality[own]
        summary_fields |= {"pages": models[0].pages, "impressions": models[0].impressions}
    else:
        quality = _fields(_NO_QUALITY) | {"clicks": summary.outcomes.clicks.joined}
        quality |= {"model": None, "weights_sha256": None, "segments": None, "second_half": None}
        quality |= {"first_close": None, "last_close": None}
        quality |= {"levels": {}, "positions": {}, "timeline": [], "calibration_curve": []}
    return Report(
        **(quality | summary_fields),
        models=list(models),
        pages_per_second=summary.pages / summary.seconds if summary.seconds > 0 else None,
        warnings=log_warnings(summary.outcomes, summary.rejections, summary.log_order, summary.late_records),
    )


_NO_QUALITY = QualityStats(
    pages=0,
    impressions=0,
    clicks=0,
    auc=None,
    gauc=None,
    log_loss=None,
    normalized_entropy=None,
    calibration=None,
)


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {field: getattr(struct, field) for field in struct.__struct_fields__}
