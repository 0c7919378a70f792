"""Differences between models over the same pages, with intervals over pages and over users."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from prectr.model.quality.quality import Quality
from prectr.model.quality.resamples import METRICS, Resamples

NORMAL_QUANTILE: Final = 1.96
MIN_REPLICATES: Final = 50
"""With fewer replicates in which both values are defined there is no interval: the log is too small."""

Values = list[float | None]


class Interval(msgspec.Struct, frozen=True, array_like=True):
    """A 95 % interval."""

    low: float
    high: float


class MetricSample(msgspec.Struct, frozen=True, kw_only=True):
    """A metric's value over all pages, and in each bootstrap replicate over pages and over users."""

    value: float | None
    pages: Values
    users: Values


class ModelSample(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of a model or a baseline over so many pages; a score that is no probability has no log loss."""

    model: str
    pages: int
    metrics: dict[str, MetricSample]


class PairedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """`first` less `second`, of a metric, over the same pages.

    by_page, by_user: 95 % interval if pages, or users with all their pages, were drawn anew: the difference ± 1.96
    standard deviations of the paired bootstrap replicates. None where the log is too small for one.
    """

    first: str
    second: str
    metric: str
    difference: float
    by_page: Interval | None
    by_user: Interval | None


def sample_of(model: str, quality: Quality, resamples: Resamples, *, is_probability: bool = True) -> ModelSample:
    """The metrics of a model with its replicates."""
    total = quality.segments()["all"].stats()
    replicates = resamples.replicates()
    return ModelSample(
        model=model,
        pages=total.pages,
        metrics={
            name: MetricSample(
                value=getattr(total, name),
                pages=_values(replicates[name].pages.tolist()),
                users=_values(replicates[name].users.tolist()),
            )
            for name in METRICS
            if is_probability or name != "log_loss"
        },
    )


def paired_differences(samples: Sequence[ModelSample]) -> list[PairedDifference]:
    """The differences of all pairs of models over the same pages, in the order given, by metric."""
    return [
        found
        for first, second in itertools.combinations(samples, 2)
        if first.pages == second.pages
        for found in differences_of(first, second)
    ]


def differences_of(first: ModelSample, second: ModelSample) -> Iterator[PairedDifference]:
    """The difference of each metric that both have; both must be of the same pages."""
    for name, one in first.metrics.items():
        other = second.metrics.get(name)
        if other is None or one.value is None or other.value is None:
            continue
        difference = one.value - other.value
        yield PairedDifference(
            first=first.model,
            second=second.model,
            metric=name,
            difference=difference,
            by_page=_interval(difference, one.pages, other.pages),
            by_user=_interval(difference, one.users, other.users),
        )


def interval_of(sample: MetricSample) -> Interval | None:
    """The interval of the metric itself, over users."""
    return None if sample.value is None else _interval(sample.value, sample.users, [0.0] * len(sample.users))


def _interval(center: float, one: Values, other: Values) -> Interval | None:
    spread = [a - b for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if len(spread) < MIN_REPLICATES:
        return None
    half = NORMAL_QUANTILE * float(np.std(spread, ddof=1))
    return Interval(center - half, center + half)


def _values(values: Sequence[float]) -> Values:
    return [None if np.isnan(value) else value for value in values]
