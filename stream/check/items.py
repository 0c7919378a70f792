"""What the pages show: how many items, at which positions, with which levels."""

from collections import Counter

import msgspec

from prectr.stream.events.contract import Item


class ItemReport(msgspec.Struct):
    """Items of the pages that have any.

    Attributes:
        pages, impressions: pages with items, and their items.
        smallest, median, largest: items of a page.
        consecutive: pages whose positions are 1, 2, 3 … in the order of the list.
        start_later: pages whose first position is above 1, such as a second screen of results.
        gaps: pages with a position left out between their first and last.
        repeated_positions, repeated_items: pages with a position or an item that occurs twice.
        levels: impressions by logged relevance level, 1 to 4.
        without_level: impressions whose level the labeller will fill in.
    """

    pages: int
    impressions: int
    smallest: int
    median: int
    largest: int
    consecutive: int
    start_later: int
    gaps: int
    repeated_positions: int
    repeated_items: int
    levels: dict[str, int]
    without_level: int


class PageItems:
    """Counts items, positions and levels, page by page."""

    def __init__(self) -> None:
        self._sizes: Counter[int] = Counter()
        self._levels: Counter[int | None] = Counter()
        self._consecutive = 0
        self._start_later = 0
        self._gaps = 0
        self._repeated_positions = 0
        self._repeated_items = 0

    def add(self, items: list[Item]) -> None:
        """Count the items of a page, at least one, with their positions filled in."""
        size = len(items)
        self._sizes[size] += 1
        self._levels.update([item.relevance for item in items])
        if len({item.item_id for item in items}) < size:
            self._repeated_items += 1
        positions: list[int] = [item.position or 0 for item in items]
        if positions == list(range(1, size + 1)):
            self._consecutive += 1
            return
        distinct = len(set(positions))
        first, last = min(positions), max(positions)
        self._start_later += first > 1
        self._gaps += last - first + 1 > distinct
        self._repeated_positions += distinct < size

    def report(self) -> ItemReport:
        """Summarise."""
        pages = self._sizes.total()
        return ItemReport(
            pages=pages,
            impressions=sum(size * count for size, count in self._sizes.items()),
            smallest=min(self._sizes, default=0),
            median=self._median_size(pages),
            largest=max(self._sizes, default=0),
            consecutive=self._consecutive,
            start_later=self._start_later,
            gaps=self._gaps,
            repeated_positions=self._repeated_positions,
            repeated_items=self._repeated_items,
            levels={str(level): self._levels[level] for level in range(1, 5)},
            without_level=self._levels[None],
        )

    def _median_size(self, pages: int) -> int:
        rest = (pages + 1) // 2
        for size in sorted(self._sizes):
            rest -= self._sizes[size]
            if rest <= 0:
                return size
        return 0
