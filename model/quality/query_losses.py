"""Which queries a model ranks worst, and on which the most is lost, in bounded memory.

A page's loss is its ideal DCG less the DCG of its items in the order of their scores (Järvelin and Kekäläinen 2002),
with a gain of 1 for a click and a discount of 1/log2(1 + rank): the clicks' worth that ranking better could win, in
units of a click at rank 1. A page without clicks loses nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from prectr.model.features.hashing import HashCache
from prectr.model.quality.scored_pages import ScoredPages
from prectr.model.quality.sketch import FIXED_POINT_SCALE, Floats, SketchUpdate
from prectr.stream.records import Example

_MAX_QUERIES: Final = 4_096
_LOST: Final = 3
"""The place of `QueryLoss.lost` among its sums."""
MIN_WORST_PAGES: Final = 20
"""A query needs so many pages with clicked and unclicked items to be among the worst: the AUC of fewer is noise."""


class QueryLoss(msgspec.Struct, frozen=True, array_like=True):
    """Sums over the pages of a query, whole numbers.

    pages, clicks; ranked: pages with both clicked and unclicked items. lost: loss, and page_auc: sum of the AUC of the
    ranked pages, in fixed point.
    """

    pages: int
    clicks: int
    ranked: int
    lost: int
    page_auc: int


class RankedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query in a report.

    lost: clicks' worth lost, in units of a click at rank 1. page_auc: mean AUC within its pages; None if none has
    both clicked and unclicked items.
    """

    query: str
    pages: int
    clicks: int
    lost: float
    page_auc: float | None


class QueryLosses:
    """The sums of the queries with the most lost.

    Exact while a run has fewer than 8,192 queries; beyond that, sums of queries that lost little so far are dropped.
    """

    def __init__(self, state: Mapping[str, QueryLoss] | None = None) -> None:
        """Continue from a saved `state`."""
        self._sums: dict[str, list[int]] = {
            query: list(msgspec.structs.astuple(sums)) for query, sums in (state or {}).items()
        }
        self._hash = HashCache()

    def add(self, pages: ScoredPages, update: SketchUpdate, examples: Sequence[Example]) -> None:
        """Count scored pages.

        Args:
            pages: the pages, in any order.
            update: their `sketch_update`.
            examples: the same pages, in any order: their queries are named in the report.
        """
        names = {self._hash(query): query for query in {example.query for example in examples}}
        lost = np.rint(page_losses(pages) * FIXED_POINT_SCALE).astype(np.int64)
        clicks = np.add.reduceat(pages.labels.astype(np.int64), pages.page_starts[:-1])
        ranked = update.gauc_weight > 0
        page_auc = update.gauc // np.maximum(update.gauc_weight, 1)
        keys, query_of = np.unique(pages.query_keys, return_inverse=True)
        sums = np.zeros((len(keys), 5), np.int64)
        np.add.at(sums, query_of, np.stack((np.ones_like(lost), clicks, ranked, lost, page_auc), axis=1))
        # Sorted, so that what is kept does not depend on the order of the pages.
        for query, row in sorted(zip(map(names.__getitem__, keys.tolist()), sums.tolist(), strict=True)):
            known = self._sums.get(query)
            if known is None:
                self._sums[query] = row
            else:
                for column, value in enumerate(row):
                    known[column] += value
        if len(self._sums) >= 2 * _MAX_QUERIES:
            kept = sorted(self._sums.items(), key=lambda entry: (-entry[1][_LOST], entry[0]))[:_MAX_QUERIES]
            self._sums = dict(kept)

    def most_lost(self, count: int) -> list[RankedQuery]:
        """The `count` queries with the most lost, in descending order."""
        by_lost = sorted(self.state().items(), key=lambda entry: (-entry[1].lost, entry[0]))
        return [_ranked(query, sums) for query, sums in by_lost[:count] if sums.lost]

    def worst(self, count: int) -> list[RankedQuery]:
        """The `count` queries with the lowest page AUC, in ascending order, among those with enough ranked pages."""
        enough = [entry for entry in self.state().items() if entry[1].ranked >= MIN_WORST_PAGES]
        enough.sort(key=lambda entry: (entry[1].page_auc / entry[1].ranked, entry[0]))
        return [_ranked(query, sums) for query, sums in enough[:count]]

    def state(self) -> dict[str, QueryLoss]:
        """All sums, to be saved."""
        return {query: QueryLoss(*sums) for query, sums in self._sums.items()}


def page_losses(pages: ScoredPages) -> Floats:
    """float64[P]: ideal DCG less the DCG in descending order of the scores; of equal scores, clicked ones come last."""
    starts = pages.page_starts
    page_of = np.arange(len(pages.page_sizes)).repeat(pages.page_sizes)
    order = np.lexsort((pages.labels, -pages.logits, page_of))
    discount = 1.0 / np.log2(2.0 + np.arange(len(order)) - starts[page_of])
    clicks = np.add.reduceat(pages.labels.astype(np.int64), starts[:-1])
    is_ideal = np.arange(len(order)) - starts[page_of] < clicks[page_of]
    losses: Floats = np.add.reduceat((is_ideal.astype(np.float64) - pages.labels[order]) * discount, starts[:-1])
    return losses


def _ranked(query: str, sums: QueryLoss) -> RankedQuery:
    return RankedQuery(
        query=query,
        pages=sums.pages,
        clicks=sums.clicks,
        lost=sums.lost / FIXED_POINT_SCALE,
        page_auc=sums.page_auc / FIXED_POINT_SCALE / sums.ranked if sums.ranked else None,
    )
