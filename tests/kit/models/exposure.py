"""How often, and how high, items have been shown for a query, counted one by one."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from prectr.model.features.batch import Batch


def expected_exposure(earlier: Sequence[Batch], batch_to_score: Batch) -> list[list[float]]:
    """The five features of each impression of `batch_to_score`, from lists of all earlier batches."""
    pages: Counter[str] = Counter()
    impressions: Counter[str] = Counter()
    squares: Counter[str] = Counter()
    positions: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for batch in earlier:
        pages.update(example.query for example in batch.examples)
        pairs = [
            (batch.examples[page].query, item)
            for page, item in zip(batch.page_of.tolist(), batch.item_ids, strict=True)
        ]
        for query, item in pairs:
            impressions[query] += 1
            squares[query] += 2 * len(positions[query, item]) + 1
        for pair, position in zip(pairs, batch.positions.tolist(), strict=True):
            positions[pair].append(int(position))
    found: list[list[float]] = []
    for n, page in enumerate(batch_to_score.page_of.tolist()):
        query = batch_to_score.examples[page].query
        shown = positions[query, batch_to_score.item_ids[n]]
        if not shown:
            found.append([0.0] * 5)
            continue
        mean = squares[query] / (impressions[query] * pages[query])
        rate = (len(shown) + 5 * mean) / (pages[query] + 5)
        height = (sum(math.log(shown_position) for shown_position in shown) + 1.5) / (len(shown) + 1) - 1.5
        lift, log_count = _log_odds(rate) - _log_odds(mean), 0.3 * math.log(1 + len(shown))
        plain = math.log((len(shown) + 1) / (max(pages[query] - len(shown), 0) + 5)) - math.log(1 / 5)
        found.append([lift, log_count, height, lift * log_count, plain])
    return found


def _log_odds(rate: float) -> float:
    bounded = 0.02 + 0.96 * min(rate, 1.0)
    return math.log(bounded / (1 - bounded))
