"""Batches of texts of like length, so that little is computed for padding."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def length_sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Places of batches of `size`, the longest first, so that what does not fit in memory fails at once.

    lengths: int64[n]; each batch: int64[at most size].
    """
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def length_bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator, *, bucket_batches: int = 32
) -> list[NDArray[np.int64]]:
    """Places of the batches of an epoch: drawn at random, in pools of `pool` batches sorted by length.

    lengths: int64[n]. Every place is in one batch; batches come in random order.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * bucket_batches):
        bucket = order[start : start + batch_size * bucket_batches]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[begin : begin + batch_size] for begin in range(0, len(bucket), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]
