"""A scored batch as arrays: the input of the quality sketches and of the prior click rates."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prectr.model.features.batch import Batch, Floats, Ints
from prectr.model.features.hashing import U64, hash_text

_TYPES: Final = ("<f8", "u1", "u1", "<i8", "<u8", "<i8", "<i8", "<i8", "<u8", "<u8", "<u8")


@dataclass(frozen=True, slots=True)
class ScoredPages:
    """P scored pages with their N impressions, in any order: everything counted of them is a whole number."""

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
    page_keys: U64
    """uint64[P]: hashes of the request ids, and so of the users and the queries."""
    user_keys: U64
    query_keys: U64

    @property
    def page_starts(self) -> Ints:
        """int64[P + 1]"""
        return np.concatenate(([0], np.cumsum(self.page_sizes)))

    def encode(self) -> list[bytes]:
        """Encode as bytes, for another process; see `decode`."""
        return [array.tobytes() for array in _arrays(self)]


NO_PAGES: Final = ScoredPages(*(np.empty(0, kind) for kind in _TYPES))
"""The scored pages of an empty batch."""


def scored_pages_of(batch: Batch, logits: Floats) -> ScoredPages:
    """The scored pages of a batch with these scores, logits float64[N]."""
    return ScoredPages(
        logits=logits,
        labels=batch.labels,
        levels=batch.levels,
        positions=batch.positions,
        category=batch.category,
        page_sizes=np.diff(batch.page_starts),
        user_activity=batch.user_activity,
        closes_at=batch.closes_at,
        page_keys=np.array([hash_text(request_id) for request_id in batch.request_ids], np.uint64),
        user_keys=batch.user,
        query_keys=batch.query,
    )


def decode(encoded: Sequence[bytes]) -> ScoredPages:
    """Decode what `ScoredPages.encode` returned."""
    return ScoredPages(*(np.frombuffer(part, kind) for part, kind in zip(encoded, _TYPES, strict=True)))


def concat(parts: Sequence[ScoredPages]) -> ScoredPages:
    """Concatenate the pages of several batches."""
    return ScoredPages(*(np.concatenate(arrays) for arrays in zip(*map(_arrays, parts), strict=True)))


def _arrays(pages: ScoredPages) -> list[NDArray[Any]]:
    return [getattr(pages, field.name) for field in fields(pages)]
