"""A query's recent shifts, impression by impression, from the examples."""

import math
from collections.abc import Iterator

import numpy as np

from prectr.model.features.batch import Batch

_STEPS = np.array([-1.5, -0.5, 0.5, 1.5])
_PRIOR_PRECISION = np.eye(2) / 0.7**2


def shifts_of(batch: Batch, n: int) -> Iterator[tuple[int, tuple[float, float]]]:
    """Yield (number of the half-life, (intercept, slope)) of impression n."""
    example = batch.examples[int(batch.page_of[n])]
    category = batch.rates.category[n]
    intercept, slope = _newton_step(example.query_stats, category)
    moved = [
        1.0 / (1.0 + math.exp(-(math.log(rate / (1.0 - rate)) + intercept + slope * step)))
        for rate, step in zip(category, _STEPS, strict=True)
    ]
    for number, sums in enumerate(example.query_decayed):
        yield number, _newton_step(sums, moved)


def _newton_step(sums: tuple[float, ...], expected: object) -> tuple[float, float]:
    """From zero, on the penalised log-likelihood of clicks given levels: inverse Hessian times gradient."""
    gradient, hessian = np.zeros(2), _PRIOR_PRECISION.copy()
    for shown, clicked, rate, step in zip(sums[:4], sums[4:], np.asarray(expected), _STEPS, strict=True):
        direction = np.array([1.0, step])
        gradient += (clicked - shown * rate) * direction
        hessian += shown * rate * (1.0 - rate) * np.outer(direction, direction)
    found = np.linalg.inv(hessian) @ gradient
    return float(found[0]), float(found[1])
