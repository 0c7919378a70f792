"""Bootstrap replicates of a model's quality that add up online: the intervals of differences between models.

Each page gets, in each replicate, a weight drawn from Poisson(1) (the online bootstrap of Oza and Russell 2001, and
Chamandy et al. 2012): once by its own id, so that pages are resampled, and once by its user's, so that users are
resampled with all their pages. A weight is a function of the id alone, so every model, and every run over the same log,
has the same replicates: their differences are paired. Sums are whole numbers, equal in any order of the pages.
"""

from functools import cache
from typing import Final, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.model.features.hashing import U64, mix
from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import BINS, FIXED_POINT_SCALE, Floats, Ints, SketchUpdate
from prectr.state.errors import CheckpointError, Remedy

REPLICATES: Final = 100
"""Replicates over pages, and as many over users; a standard error is then known to 7 %."""
METRICS: Final = ("auc", "gauc", "log_loss")
_COLUMNS: Final = 2 * REPLICATES
_BINS_MERGED: Final = 8
"""Bins of the quality sketch in one bin here: a spread needs less resolution than a value."""
_BINS: Final = BINS // _BINS_MERGED
_CHUNK: Final = 512
"""Pages counted at once; products of whole numbers in floats are exact up to far more."""
_SUMS: Final = 3
_PARTS_PER_HASH: Final = 4
"""16-bit draws in a hash of 64 bits."""


class ResamplesState(msgspec.Struct, frozen=True, array_like=True):
    """The encoded sums: whole numbers of 4 or 8 bytes, in the layout of `Resamples`."""

    replicates: int
    histogram: bytes
    sums: bytes


class Replicates(NamedTuple):
    """A metric's value in each replicate, float64[REPLICATES]; nan where it is undefined."""

    pages: Floats
    users: Floats


class Resamples:
    """The sums of one model in each replicate: of pages in the first half of the columns, of users in the second.

    AUC comes from bins of 1/8 of a logit: good for its spread, while its value is that of the quality sketch.
    """

    def __init__(self) -> None:
        self._histogram: Ints = np.zeros((2 * _BINS, _COLUMNS), np.int64)
        """Unclicked impressions by bin, then clicked ones."""
        self._sums: Ints = np.zeros((_SUMS, _COLUMNS), np.int64)
        """Log loss and page AUC × impressions, both in fixed point, and impressions of the pages that have an AUC."""

    def add(self, pages: ScoredPages, update: SketchUpdate) -> None:
        """Count scored pages; update: their `sketch_update`."""
        starts = pages.page_starts
        columns = update.column // _BINS_MERGED
        for first in range(0, len(pages.page_sizes), _CHUNK):
            end = min(first + _CHUNK, len(pages.page_sizes))
            inside = slice(starts[first], starts[end])
            page_of = np.arange(end - first).repeat(pages.page_sizes[first:end])
            weights = poisson_weights(pages.page_keys[first:end], pages.user_keys[first:end])
            counts = np.bincount(page_of * (2 * _BINS) + columns[inside], minlength=(end - first) * 2 * _BINS)
            counts = counts.reshape(end - first, 2 * _BINS)
            used = counts.any(axis=0)
            self._histogram[used] += _product(counts[:, used].astype(np.float32), weights)
            loss = np.add.reduceat(update.loss[inside], starts[first:end] - starts[first])
            sums = np.stack((loss, update.gauc[first:end], update.gauc_weight[first:end]), axis=1)
            self._sums += _product(sums.astype(np.float64), weights)

    def replicates(self) -> dict[str, Replicates]:
        """Each metric of `METRICS` in each replicate."""
        by_label = self._histogram.reshape(2, _BINS, _COLUMNS).astype(np.float64)
        unclicked, clicked = by_label
        below = unclicked.cumsum(axis=0) - 0.5 * unclicked
        loss, gauc, gauc_weight = self._sums.astype(np.float64)
        values = {
            "auc": _ratio((clicked * below).sum(axis=0), unclicked.sum(axis=0) * clicked.sum(axis=0)),
            "gauc": _ratio(gauc / FIXED_POINT_SCALE, gauc_weight),
            "log_loss": _ratio(loss / FIXED_POINT_SCALE, by_label.sum(axis=(0, 1))),
        }
        return {name: Replicates(row[:REPLICATES], row[REPLICATES:]) for name, row in values.items()}

    def state(self) -> ResamplesState:
        """Encode all sums, to be saved; `from_state` restores them bit for bit."""
        return ResamplesState(REPLICATES, _pack(self._histogram), _pack(self._sums))

    @classmethod
    def from_state(cls, state: ResamplesState) -> Self:
        """Restore a saved state; CheckpointError: it has another size."""
        out = cls()
        try:
            out._histogram, out._sums = _unpack(state.histogram, 2 * _BINS), _unpack(state.sums, _SUMS)
        except ValueError as error:
            raise CheckpointError(
                f"bootstrap sums of {state.replicates} replicates: {error}",
                Remedy.RELEASE_THAT_WROTE,
                Remedy.EMPTY_RUN_DIR,
            ) from error
        return out


def poisson_weights(page_keys: U64, user_keys: U64) -> NDArray[np.float32]:
    """Weights float32[P, 2 · REPLICATES] of pages, from uint64[P] keys of pages and users: whole numbers."""
    keys = np.stack((page_keys, ~user_keys), axis=1)[:, :, None]
    salts = mix(np.arange(REPLICATES // _PARTS_PER_HASH, dtype=np.uint64))
    draws = mix(mix(keys) ^ salts).view(np.uint16)
    return _poisson_table()[draws].reshape(len(page_keys), _COLUMNS)


@cache
def _poisson_table() -> NDArray[np.float32]:
    """float32[65536]: the Poisson(1) quantile of (draw + 1/2) / 65536."""
    probabilities = [np.exp(-1.0)]
    for count in range(1, 12):
        probabilities.append(probabilities[-1] / count)
    uniform = (np.arange(1 << 16) + 0.5) / (1 << 16)
    return np.searchsorted(np.cumsum(probabilities), uniform).astype(np.float32)


def _product(values: NDArray[np.floating], weights: NDArray[np.float32]) -> Ints:
    """Sums over pages, int64[columns, replicates], of values [pages, columns]."""
    product: Ints = np.rint(values.T @ weights.astype(values.dtype, copy=False)).astype(np.int64)
    return product


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio


def _pack(values: Ints) -> bytes:
    return values.astype("<u4" if int(values.max()) < 1 << 32 else "<u8").tobytes()


def _unpack(packed: bytes, rows: int) -> Ints:
    size, rest = divmod(len(packed), rows * _COLUMNS)
    if rest or size not in (4, 8):
        raise ValueError(f"{len(packed)} bytes are not {rows} × {_COLUMNS} whole numbers")
    return np.frombuffer(packed, f"<u{size}").astype(np.int64).reshape(rows, _COLUMNS)
