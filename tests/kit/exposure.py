"""How often, and how high, items have been shown for a query, counted one by one."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from model.features import Batch


def exposure_by_hand(seen: Sequence[Batch], asked: Batch) -> list[list[float]]:
    """The four numbers of each impression of `asked`, from lists of all that was shown."""
    pages: Counter[str] = Counter()
    places: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for batch in seen:
        for example in batch.examples:
            pages[example.query] += 1
        for n, page in enumerate(batch.page_of.tolist()):
            places[batch.examples[page].query, batch.item_ids[n]].append(int(batch.positions[n]))
    found: list[list[float]] = []
    for n, page in enumerate(asked.page_of.tolist()):
        query = asked.examples[page].query
        shown = places[query, asked.item_ids[n]]
        if not shown:
            found.append([0.0] * 4)
            continue
        share = math.log((len(shown) + 1) / (max(pages[query] - len(shown), 0) + 5)) - math.log(1 / 5)
        seen_log = 0.3 * math.log(1 + len(shown))
        height = (sum(math.log(place) for place in shown) + 1.5) / (len(shown) + 1) - 1.5
        found.append([share, seen_log, height, share * seen_log])
    return found
