"""A holdout of graded pairs, by query, for early stopping."""

from collections.abc import Sequence

import numpy as np

from prectr.model.text.encoder.graded import GradedPair
from prectr.state.errors import Remedy, UsageError


def split_holdout(graded: Sequence[GradedPair], share: float, seed: int) -> tuple[list[GradedPair], list[GradedPair]]:
    """Split into pairs to train on and pairs of a random share of the queries; a query is on one side only.

    Raises:
        UsageError: there are too few queries.
    """
    if share <= 0:
        return list(graded), []
    queries = sorted({pair.query for pair in graded})
    count = round(share * len(queries))
    if count < 1 or count >= len(queries):
        raise UsageError(
            f"{share:.0%} of {len(queries)} queries cannot be held out", Remedy.MORE_QUERIES, Remedy.NO_HOLDOUT
        )
    drawn = np.random.default_rng([seed, 11]).permutation(len(queries))[:count]
    holdout = {queries[index] for index in drawn.tolist()}
    return [pair for pair in graded if pair.query not in holdout], [pair for pair in graded if pair.query in holdout]
