"""Numbers of any scale and tail, standardised by what was seen before (reconstruction).

Three steps, each for a different trouble:

1. t = sign(x)·ln(1 + |x|). Prices and counts are skewed; their logarithms are not. 1e300 becomes 691.
2. z = (t − mean)/deviation, with running moments (Chan et al. 1979). What lies beyond 4 deviations enters the moments
   as 4 deviations (winsorised, Dixon 1960), or one sentinel value would widen the deviation until all other values
   looked alike. The first values have no moments to be measured by: until there are 30, the batch's own median and
   median absolute deviation take their place.
3. u = sign(z)·log2(1 + |z|), within ±16: near zero it is linear, far out it still tells 10 deviations from 1,000.
"""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_SQUASHED: Final = 16.0
"""The largest |u|."""
_WINSOR: Final = 4.0
"""Deviations beyond which a value counts as this many in the moments."""
_TRUSTED_COUNT: Final = 30
"""Values from which on the running moments decide what is far out."""
_MAD_TO_DEVIATION: Final = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
_LEAST_DEVIATION: Final = 1e-6
"""Lower bound of the deviation, relative to max(1, |mean|): a constant has none."""


class RunningMoments(msgspec.Struct):
    """Moments of a feature's logarithms t, and the range of its values x.

    count: values so far. mean: of t. squares: Σ (t − mean)². least, greatest: of x; 0 without values.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = 0.0
    greatest: float = 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of t, with a lower bound above 0."""
        variance = self.squares / self.count if self.count else 0.0
        return max(math.sqrt(variance), _LEAST_DEVIATION * max(1.0, abs(self.mean)))

    def add(self, values: Floats) -> None:
        """Add the values x of a batch, float64[any], finite, in their order."""
        if not len(values):
            return
        least, greatest = float(values.min()), float(values.max())
        self.least = min(self.least, least) if self.count else least
        self.greatest = max(self.greatest, greatest) if self.count else greatest
        logs = self._winsorised(signed_log(values))
        count = self.count + len(logs)
        mean = float(logs.mean())
        difference = mean - self.mean
        self.squares += float(((logs - mean) ** 2).sum()) + difference**2 * self.count * len(logs) / count
        self.mean += difference * len(logs) / count
        self.count = count

    def _winsorised(self, logs: Floats) -> Floats:
        center, deviation = self.mean, self.deviation
        if self.count < _TRUSTED_COUNT:
            center = float(np.median(logs))
            deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(logs - center)))
            if deviation == 0.0:
                return logs
        return np.clip(logs, center - _WINSOR * deviation, center + _WINSOR * deviation)


def signed_log(values: Floats) -> Floats:
    """t = sign(x)·ln(1 + |x|), any shape."""
    logs: Floats = np.copysign(np.log1p(np.abs(values)), values)
    return logs


def squashed(values: Floats, mean: Floats, deviation: Floats) -> Floats:
    """u of the values x, float64[R, S], by the moments of their columns, float64[S] each; NaN stays NaN."""
    scores = (signed_log(values) - mean) / deviation
    bounded: Floats = np.clip(np.copysign(np.log2(1.0 + np.abs(scores)), scores), -MAX_SQUASHED, MAX_SQUASHED)
    return bounded
