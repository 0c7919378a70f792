"""The metrics of what has been learned, replayed or live: pages, and the quality of each model by segment."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from prectr.model.quality.sketch import QualitySketch
from prectr.ops.metrics.exporter import add_samples

WHOLE_RUN: Final = "run"
"""The value of the label `window`: the figures are of everything since the start of the run."""

_GAUGES: Final[tuple[tuple[str, str, Callable[[QualitySketch], float | None]], ...]] = (
    ("prectr_auc", "Probability that a clicked impression outscores an unclicked one.", lambda sketch: sketch.auc),
    (
        "prectr_gauc",
        "Mean AUC within a page, weighted by impressions; ties half, single-class pages left out.",
        lambda sketch: sketch.gauc,
    ),
    ("prectr_log_loss", "Log loss, nats an impression.", lambda sketch: sketch.log_loss),
    (
        "prectr_normalized_entropy",
        "Log loss over that of always predicting the observed click rate.",
        lambda sketch: sketch.normalized_entropy,
    ),
    ("prectr_calibration_ratio", "Predicted over observed clicks.", lambda sketch: sketch.calibration),
)
_COUNTERS: Final[tuple[tuple[str, str, Callable[[QualitySketch], float]], ...]] = (
    ("prectr_scored_pages", "Pages scored before they were learned from.", lambda sketch: sketch.pages),
    ("prectr_scored_impressions", "Items on scored pages.", lambda sketch: sketch.impressions),
    ("prectr_scored_clicks", "Clicked items on scored pages.", lambda sketch: sketch.clicks),
    ("prectr_predicted_clicks", "Sum of predicted click probabilities.", lambda sketch: sketch.predicted),
    ("prectr_log_loss_nats", "Sum of log losses.", lambda sketch: sketch.loss),
    ("prectr_gauc_weighted", "Sum of page AUC times impressions.", lambda sketch: sketch.gauc_sum),
    ("prectr_gauc_weight", "Impressions of pages with both classes.", lambda sketch: sketch.gauc_weight),
)


def trained_pages_metric(pages: Mapping[str, int]) -> Metric:
    """Pages that each model has learned from. pages: by model."""
    family = CounterMetricFamily("prectr_trained_pages", "Pages learned from.", labels=["model"])
    return add_samples(family, (([model], count) for model, count in pages.items()))


def late_records_metric(count: int) -> Metric:
    """Records that came behind the line."""
    return CounterMetricFamily(
        "prectr_late_records", "Records behind the line that everything downstream follows.", count
    )


def quality_metrics(
    quality: Mapping[str, Mapping[str, QualitySketch]],
    windows: Mapping[str, Mapping[str, Mapping[str, QualitySketch]]] | None = None,
) -> Iterator[Metric]:
    """The figures, where they are defined, and the sums that they are made of.

    quality: of the whole run, by model, then by segment. windows: more of them, by model, then window, then segment.
    """
    sketches = [(model, segment, sketch) for model, segments in quality.items() for segment, sketch in segments.items()]
    by_window = [
        ([model, segment, window], sketch)
        for model, parts in (windows or {}).items()
        for window, segments in parts.items()
        for segment, sketch in segments.items()
    ]
    by_window += [([model, segment, WHOLE_RUN], sketch) for model, segment, sketch in sketches]
    for name, text, measure in _GAUGES:
        yield add_samples(
            GaugeMetricFamily(name, text, labels=["model", "segment", "window"]),
            ((labels, measure(sketch)) for labels, sketch in by_window),
        )
    for name, text, total in _COUNTERS:
        yield add_samples(
            CounterMetricFamily(name, text, labels=["model", "segment"]),
            (([model, segment], total(sketch)) for model, segment, sketch in sketches),
        )
