"""The linear features: which rows of a table of weights an impression has.

Fields of few values (position, level) have rows of their own; ids and crosses are hashed to the rest.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.features import Batch
from model.hashing import cross, rows

Rows = NDArray[np.int64]

RESERVED: Final = 1024
_BIAS: Final = 0
_POSITION: Final = 1
_POSITIONS: Final = 200
_LEVEL: Final = 256


def bias_rows(batch: Batch) -> Rows:
    """int64[N, 3]: the bias, the position (those from 200 on together), the level."""
    bias = np.full(batch.impressions, _BIAS)
    position = _POSITION + np.minimum(batch.positions, _POSITIONS)
    return np.stack([bias, position, _LEVEL + batch.levels.astype(np.int64)], axis=1)


def id_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 3]: user, query, item."""
    page_of = batch.page_of
    return np.stack(
        [
            rows(batch.user, "user", size, RESERVED)[page_of],
            rows(batch.query, "query", size, RESERVED)[page_of],
            rows(batch.item, "item", size, RESERVED),
        ],
        axis=1,
    )


def group_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 3]: category, brand, group (category × brand × price band)."""
    return np.stack(
        [
            rows(batch.category, "category", size, RESERVED),
            rows(batch.brand, "brand", size, RESERVED),
            rows(batch.group, "group", size, RESERVED),
        ],
        axis=1,
    )


def cross_rows(batch: Batch, size: int) -> Rows:
    """int64[N, 2]: query × level, user × level."""
    levels = batch.levels.astype(np.uint64)
    return np.stack(
        [
            rows(cross(batch.query[batch.page_of], levels), "query × level", size, RESERVED),
            rows(cross(batch.user[batch.page_of], levels), "user × level", size, RESERVED),
        ],
        axis=1,
    )
