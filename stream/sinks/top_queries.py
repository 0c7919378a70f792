"""The most frequent queries of a run, with their impressions and clicks by level."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from prectr.state.aggregates import LevelCounts, add_counts, count_levels
from prectr.stream.records import Example

_MAX_QUERIES: Final = 4_096


class TopQueries:
    """A sink that keeps the totals of the queries with the most impressions, in bounded memory.

    Exact while a run has fewer than 8,192 queries; beyond that, totals of queries that were rare so far are dropped.
    """

    def __init__(self) -> None:
        self._totals: dict[str, LevelCounts] = {}

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Count the pages."""
        by_query: dict[str, list[Example]] = {}
        for example in examples:
            pages = by_query.get(example.query)
            if pages is None:
                by_query[example.query] = [example]
            else:
                pages.append(example)
        if len(self._totals) + len(by_query) < 2 * _MAX_QUERIES:
            for query, pages in by_query.items():
                self._add(query, pages)
            return
        # Page by page, so that what is kept does not depend on how the pages are divided into calls.
        for example in examples:
            self._add(example.query, [example])
            if len(self._totals) >= 2 * _MAX_QUERIES:
                self._totals = dict(self.top(_MAX_QUERIES))

    def _add(self, query: str, pages: Sequence[Example]) -> None:
        counts = count_levels(b"".join([page.levels for page in pages]), b"".join([page.labels for page in pages]))
        previous = self._totals.get(query)
        self._totals[query] = counts if previous is None else add_counts(previous, counts)

    def top(self, count: int) -> list[tuple[str, LevelCounts]]:
        """Return the `count` queries with the most impressions, in descending order; ties by name."""
        return sorted(self._totals.items(), key=lambda entry: (-sum(entry[1][:4]), entry[0]))[:count]

    def flush(self) -> None:
        """Do nothing: every page is counted at once."""

    def save(self, folder: Path) -> None:
        """Write the totals."""
        (folder / "top_queries.msgpack").write_bytes(msgspec.msgpack.encode(self._totals))

    def load(self, folder: Path) -> None:
        """Restore the totals."""
        stored = (folder / "top_queries.msgpack").read_bytes()
        self._totals = msgspec.msgpack.decode(stored, type=dict[str, LevelCounts])
