"""The metrics of model quality, by model, segment and window."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import Metric

from prectr.model.quality.sketch import QualitySketch
from prectr.ops.metrics.catalogue.model_quality import (
    AUC,
    CALIBRATION_RATIO,
    GAUC,
    GAUC_WEIGHT,
    GAUC_WEIGHTED,
    LOG_LOSS,
    LOG_LOSS_NATS,
    NORMALIZED_ENTROPY,
    PREDICTED_CLICKS,
    SCORED_CLICKS,
    SCORED_IMPRESSIONS,
    SCORED_PAGES,
)
from prectr.ops.metrics.catalogue.training import TRAINED_PAGES
from prectr.ops.metrics.definition import MetricDefinition

WHOLE_RUN: Final = "run"
"""The value of the label `window` for everything since the start of the run."""

_GAUGES: Final[tuple[tuple[MetricDefinition, Callable[[QualitySketch], float | None]], ...]] = (
    (AUC, lambda sketch: sketch.auc),
    (GAUC, lambda sketch: sketch.gauc),
    (LOG_LOSS, lambda sketch: sketch.log_loss),
    (NORMALIZED_ENTROPY, lambda sketch: sketch.normalized_entropy),
    (CALIBRATION_RATIO, lambda sketch: sketch.calibration),
)
_COUNTERS: Final[tuple[tuple[MetricDefinition, Callable[[QualitySketch], float]], ...]] = (
    (SCORED_PAGES, lambda sketch: sketch.pages),
    (SCORED_IMPRESSIONS, lambda sketch: sketch.impressions),
    (SCORED_CLICKS, lambda sketch: sketch.clicks),
    (PREDICTED_CLICKS, lambda sketch: sketch.predicted),
    (LOG_LOSS_NATS, lambda sketch: sketch.loss),
    (GAUC_WEIGHTED, lambda sketch: sketch.gauc_sum),
    (GAUC_WEIGHT, lambda sketch: sketch.gauc_weight),
)


def trained_pages_metric(pages: Mapping[str, int]) -> Metric:
    """Pages that each model has trained on. pages: by model."""
    return TRAINED_PAGES.metric(([model], count) for model, count in pages.items())


def quality_metrics(
    quality: Mapping[str, Mapping[str, QualitySketch]],
    windows: Mapping[str, Mapping[str, Mapping[str, QualitySketch]]] | None = None,
) -> Iterator[Metric]:
    """The quality metrics that are defined, and the sums behind them.

    Args:
        quality: of the whole run, by model, then segment.
        windows: of further windows, by model, then window, then segment.
    """
    sketches = [(model, segment, sketch) for model, segments in quality.items() for segment, sketch in segments.items()]
    by_window = [
        ([model, segment, window], sketch)
        for model, parts in (windows or {}).items()
        for window, segments in parts.items()
        for segment, sketch in segments.items()
    ]
    by_window += [([model, segment, WHOLE_RUN], sketch) for model, segment, sketch in sketches]
    for definition, measure in _GAUGES:
        yield definition.metric((labels, measure(sketch)) for labels, sketch in by_window)
    for definition, total in _COUNTERS:
        yield definition.metric(([model, segment], total(sketch)) for model, segment, sketch in sketches)
