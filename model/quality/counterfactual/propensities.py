"""How much a position alone helps a click, from (query, item) pairs that a log showed at several positions.

Position-based model: P(click) = θ(position) · γ(query, item). Pairs whose position varied identify the ratios of θ
(intervention harvesting, Agarwal et al. 2019), if what moved a pair did not also change how attractive it is. θ and γ
are fitted as Poisson rates with a factor for each pair: the factors cancel exactly, however many there are (Hausman,
Hall and Griliches 1984), and only the mean has to be right.
"""

from typing import Final, NamedTuple, Self

import msgspec
import numpy as np

from prectr.model.features.hashing import U64
from prectr.model.quality.sketch import Bytes, Floats, Ints

POSITIONS: Final = 20
"""Positions that are estimated; clicks further down are left out."""
MIN_SWAP_CLICKS: Final = 50
"""A position's propensity needs so many clicks on pairs whose position varied."""
JACKKNIFE_GROUPS: Final = 10
_MAX_CELLS: Final = 1 << 18
_MAX_WAITING: Final = 1 << 18
_NO_LIMIT: Final = (1 << 64) - 1
_ITERATIONS: Final = 500
_TOLERANCE: Final = 1e-7


class PositionPairsState(msgspec.Struct, frozen=True, array_like=True):
    """limit: pairs up to it are kept. cells: little-endian uint64 keys, then int64 positions, impressions, clicks."""

    limit: int
    cells: tuple[bytes, bytes, bytes, bytes]


class Propensities(NamedTuple):
    """Fitted propensities.

    theta: float64[POSITIONS], relative to position 1 or the first known one; nan where it is not identified.
    left_out: float64[JACKKNIFE_GROUPS, POSITIONS], the same without a tenth of the pairs each.
    swap_clicks: clicks on pairs whose position varied, at identified positions.
    """

    theta: Floats
    left_out: Floats
    swap_clicks: int


class PositionPairs:
    """Impressions and clicks by pair and position, of a sample of the pairs that fits into memory.

    A pair is kept if its hash is not above a limit, which halves when there are too many: kept pairs are counted fully.
    """

    def __init__(self, state: PositionPairsState | None = None) -> None:
        """Continue from a saved `state`."""
        self._limit = _NO_LIMIT if state is None else state.limit
        cells = (b"",) * 4 if state is None else state.cells
        self._keys: U64 = np.frombuffer(cells[0], "<u8")
        self._counts: Ints = np.stack([np.frombuffer(part, "<i8") for part in cells[1:]])
        self._waiting: list[tuple[U64, Ints]] = []
        self._waiting_rows = 0

    def add(self, pairs: U64, positions: Ints, labels: Bytes) -> None:
        """Count impressions: uint64[n] hashes of (query, item), int64[n] positions from 1, uint8[n] labels."""
        kept = positions <= POSITIONS
        if self._limit < _NO_LIMIT:
            kept &= pairs <= np.uint64(self._limit)
        counts = np.stack((positions[kept], np.ones(int(kept.sum()), np.int64), labels[kept].astype(np.int64)))
        self._waiting.append((pairs[kept], counts))
        self._waiting_rows += counts.shape[1]
        if self._waiting_rows >= _MAX_WAITING:
            self._merge()

    def state(self) -> PositionPairsState:
        """All counts, to be saved."""
        self._merge()
        position, shown, clicked = (row.astype("<i8").tobytes() for row in self._counts)
        return PositionPairsState(self._limit, (self._keys.astype("<u8").tobytes(), position, shown, clicked))

    @classmethod
    def of(cls, pairs: U64, positions: Ints, labels: Bytes) -> Self:
        """Count one batch."""
        out = cls()
        out.add(pairs, positions, labels)
        return out

    def propensities(self) -> Propensities:
        """Fit the propensities of all positions that the log identifies."""
        self._merge()
        keys, pair = np.unique(self._keys, return_inverse=True)
        position, shown, clicked = self._counts
        clicks = np.bincount(pair, clicked, len(keys))
        varied = (np.bincount(pair, minlength=len(keys)) > 1) & (clicks > 0)
        used = varied[pair]
        cells = _Cells(pair[used], position[used] - 1, shown[used].astype(float), clicked[used].astype(float))
        identified = cells.identified(len(keys))
        cells = cells.at(identified[cells.position])
        theta = cells.fit(len(keys), np.where(identified, 1.0, np.nan))
        group = keys % np.uint64(JACKKNIFE_GROUPS)
        left_out = [
            cells.at(group[cells.pair] != np.uint64(number)).fit(len(keys), theta) for number in range(JACKKNIFE_GROUPS)
        ]
        return Propensities(theta, np.array(left_out), int(cells.clicked.sum()))

    def _merge(self) -> None:
        if not self._waiting:
            return
        keys = np.concatenate([self._keys, *(part for part, _ in self._waiting)])
        counts = np.concatenate([self._counts, *(part for _, part in self._waiting)], axis=1)
        self._waiting, self._waiting_rows = [], 0
        order = np.lexsort((counts[0], keys))
        keys, counts = keys[order], counts[:, order]
        while True:
            starts = np.flatnonzero(
                np.concatenate(([True], (keys[1:] != keys[:-1]) | (counts[0, 1:] != counts[0, :-1])))
            )[: len(keys)]
            if len(starts) <= _MAX_CELLS:
                break
            self._limit //= 2
            kept = keys <= np.uint64(self._limit)
            keys, counts = keys[kept], counts[:, kept]
        self._keys = keys[starts]
        sums = np.add.reduceat(counts[1:], starts, axis=1) if len(starts) else counts[1:]
        self._counts = np.concatenate((counts[:1, starts], sums))


class _Cells(NamedTuple):
    """Impressions and clicks by pair and position (from 0)."""

    pair: Ints
    position: Ints
    shown: Floats
    clicked: Floats

    def at(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "_Cells":
        return _Cells(self.pair[chosen], self.position[chosen], self.shown[chosen], self.clicked[chosen])

    def identified(self, pairs: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Positions with enough clicks that pairs connect to the position with the most clicks."""
        clicks = np.bincount(self.position, self.clicked, POSITIONS)
        enough = clicks >= MIN_SWAP_CLICKS
        if not enough.any():
            return enough
        inside = self.at(enough[self.position])
        first = np.full(pairs, POSITIONS)
        np.minimum.at(first, inside.pair, inside.position)
        linked = np.eye(POSITIONS)
        linked[first[inside.pair], inside.position] = 1
        reach = np.linalg.matrix_power(np.minimum(linked + linked.T, 1.0), POSITIONS) > 0
        return np.asarray(enough & reach[int(clicks.argmax())])

    def fit(self, pairs: int, start: Floats) -> Floats:
        """Maximum likelihood by alternating updates, from `start`; positions that are nan there are left out."""
        known = ~np.isnan(start)
        theta = np.where(known, start, 0.0)
        clicks = np.bincount(self.position, self.clicked, POSITIONS)
        pair_clicks = np.bincount(self.pair, self.clicked, pairs)
        if not known.any():
            return start
        for _ in range(_ITERATIONS):
            expected = np.bincount(self.pair, self.shown * theta[self.position], pairs)
            gamma = np.divide(pair_clicks, expected, out=np.zeros(pairs), where=expected > 0)
            exposure = np.bincount(self.position, self.shown * gamma[self.pair], POSITIONS)
            updated = np.divide(clicks, exposure, out=np.zeros(POSITIONS), where=exposure > 0)
            updated /= updated[int(known.argmax())] or 1.0
            done = np.abs(updated - theta).max() < _TOLERANCE
            theta = updated
            if done:
                break
        return np.where(known, theta, np.nan)
