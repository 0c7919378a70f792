"""What is counted of a batch that has been scored: by the sketches of quality and by the parents of click rates."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.batch import Batch, Floats, Ints
from prectr.model.features.hashing import U64

_TYPES: Final = ("<f8", "u1", "u1", "<i8", "<u8", "<i8", "<i8", "<i8")


@dataclass(frozen=True, slots=True)
class ScoredPages:
    """P pages and their N impressions. All that is counted of them is whole numbers, so their order is free."""

    logits: Floats
    """float64[N]: log-odds of a click at the position shown."""
    labels: NDArray[np.uint8]
    """uint8[N], and so levels."""
    levels: NDArray[np.uint8]
    positions: Ints
    """int64[N]"""
    category: U64
    """uint64[N]"""
    page_sizes: Ints
    """int64[P]: impressions of each page."""
    user_activity: Ints
    """int64[P]"""
    closes_at: Ints
    """int64[P]"""

    @property
    def page_starts(self) -> Ints:
        """int64[P + 1]"""
        return np.concatenate(([0], np.cumsum(self.page_sizes)))

    def encode(self) -> list[bytes]:
        """As bytes, for another process; `decode` gives it back."""
        return [array.tobytes() for array in _arrays(self)]


def scored_pages_of(batch: Batch, logits: Floats) -> ScoredPages:
    """What is counted of a batch with these scores."""
    return ScoredPages(
        logits=logits,
        labels=batch.labels,
        levels=batch.levels,
        positions=batch.positions,
        category=batch.category,
        page_sizes=np.diff(batch.page_starts),
        user_activity=batch.user_activity,
        closes_at=batch.closes_at,
    )


def decode(encoded: Sequence[bytes]) -> ScoredPages:
    """What `Measured.encode` gave."""
    return ScoredPages(*(np.frombuffer(part, kind) for part, kind in zip(encoded, _TYPES, strict=True)))


def concat(parts: Sequence[ScoredPages]) -> ScoredPages:
    """All pages of several."""
    return ScoredPages(*(np.concatenate(arrays) for arrays in zip(*map(_arrays, parts), strict=True)))


def _arrays(pages: ScoredPages) -> list[NDArray[Any]]:
    return [getattr(pages, field.name) for field in fields(pages)]


NO_PAGES: Final = ScoredPages(*(np.empty(0, kind) for kind in _TYPES))
"""Of no pages."""
