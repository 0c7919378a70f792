"""Batches of texts of similar length, to save computation on padding."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def length_sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Indices of batches of at most `batch_size`, longest first, so that running out of memory shows at once.

    lengths: int64[n]; yields int64[at most batch_size].
    """
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def length_bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator, *, bucket_batches: int = 32
) -> list[NDArray[np.int64]]:
    """Indices of the batches of an epoch: a random permutation, sorted by length in buckets of `bucket_batches`.

    lengths: int64[n]. Every index is in one batch; batches are in random order.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * bucket_batches):
        bucket = order[start : start + batch_size * bucket_batches]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[begin : begin + batch_size] for begin in range(0, len(bucket), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]
