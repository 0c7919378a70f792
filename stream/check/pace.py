"""How dense a log is in time, and what that makes of the training batches."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_BATCHES: Final = 100_000
"""Batches that are cut at most; the rest of a longer log is taken to be like its beginning."""


class PaceReport(msgspec.Struct):
    """Pages by time.

    pages_per_minute: over the minutes from the first to the last page. pages_per_batch: mean, with the configured
    `batch_pages` and `batch_span`; None without a page.
    """

    pages_per_minute: float
    pages_per_batch: float | None


def pace_report(times: NDArray[np.int64], fraction: float, batch_pages: int, batch_span: float) -> PaceReport:
    """Summarise the times of pages.

    Args:
        times: int64[P], ms, in any order, of a sample.
        fraction: the share of all pages that is in the sample.
        batch_pages, batch_span: as configured; batch_span in seconds.
    """
    if len(times) == 0:
        return PaceReport(0.0, None)
    ordered = np.sort(times)
    minutes = max((int(ordered[-1]) - int(ordered[0])) / 60_000, 1.0)
    in_batch = mean_batch(ordered, max(1, round(batch_pages * fraction)), round(batch_span * 1000))
    return PaceReport(len(times) / fraction / minutes, min(in_batch / fraction, float(batch_pages)))


def mean_batch(ordered: NDArray[np.int64], batch_pages: int, batch_span: int) -> float:
    """Return the mean number of pages of a batch, cut as the trainer does. ordered: ascending times; batch_span: ms."""
    start = batches = 0
    while start < len(ordered) and batches < MAX_BATCHES:
        end = int(np.searchsorted(ordered, ordered[start] + batch_span, side="right"))
        start = min(end, start + batch_pages)
        batches += 1
    return start / batches
