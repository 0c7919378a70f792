"""What `report.json` holds, and what the runner hands in for it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from prectr.model.quality.quality import QualitySummary, SecondHalfStats, StatsBySegment, TimelinePoint
from prectr.model.quality.sketch import CalibrationPoint, ImpressionStats, QualityStats
from prectr.ops.report.levels import LevelReport
from prectr.stream.join.outcomes import Outcomes

ByLevel = tuple[int, int, int, int]
"""A count for each relevance level, 1 to 4."""


class QueryPreference(msgspec.Struct, frozen=True, kw_only=True):
    """Which relevance levels a query's users click: its pages' impressions and clicks by level, over the whole log."""

    query: str
    impressions: ByLevel
    clicks: ByLevel


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay knows when it ends, besides its models' quality.

    dead_letters: by reason. out_of_order: records behind the line that everything downstream follows.
    pages, impressions: of the emitted pages, the items on them. busiest_queries: most pages first.
    seconds: wall time, earlier runs included that a resumed one goes on from. config: every setting, by name.
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


class ModelReport(QualitySummary, frozen=True, kw_only=True):
    """One model's quality; `weights_sha256` is null for what has no weights (an oracle).

    inferred_levels: of a model that infers relevance from text; null for others, and before anything is learned.
    """

    model: str
    weights_sha256: str | None
    inferred_levels: LevelReport | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of `report.json`; null where a figure is undefined.

    The quality at the top (model to calibration_curve, weights_sha256) is that of the first of `models`; without
    models (`--no-train`) it is null, and pages, impressions and clicks are those that the stages put out.
    seconds: wall time; pages_per_second: pages over it.
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


def model_report(
    model: str, quality: QualitySummary, weights_sha256: str | None, inferred_levels: LevelReport | None = None
) -> ModelReport:
    """The report of one model from `Quality.summary()`."""
    return ModelReport(model=model, weights_sha256=weights_sha256, inferred_levels=inferred_levels, **_fields(quality))


def build_report(summary: RunSummary, models: Sequence[ModelReport]) -> Report:
    """Put a run's facts and its models, the one that the run is named after first, into a report."""
    summary_fields = _fields(summary)
    if models:
        quality = _fields(models[0])
        del quality["inferred_levels"]
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
