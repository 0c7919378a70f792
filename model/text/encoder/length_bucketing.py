"""Batches of texts of like length, so that little is computed for padding."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def by_length(lengths: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Places of batches of `size`, the longest first, so that what does not fit in memory fails at once.

    lengths: int64[n]; each batch: int64[at most size].
    """
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def shuffled_by_length(
    lengths: NDArray[np.int64], size: int, rng: np.random.Generator, *, pool: int = 32
) -> list[NDArray[np.int64]]:
    """Places of the batches of an epoch: drawn at random, in pools of `pool` batches sorted by length.

    lengths: int64[n]. Every place is in one batch; batches come in random order.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * pool):
        drawn = order[start : start + size * pool]
        drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
        batches += [drawn[at : at + size] for at in range(0, len(drawn), size)]
    return [batches[place] for place in rng.permutation(len(batches))]
