"""Custom features as a batch of pages has them: values by source, name and kind, before any statistics."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from prectr.stream.events.contract import ResultPage
from prectr.stream.records import Example, decode_page

Source = Literal["page", "item", "context"]
"""Where a custom feature is logged: `features` of the page, `features` of an item, or `context` of the page."""
SOURCES: Final[tuple[Source, ...]] = ("page", "item", "context")

_KEYS: Final = (b"\xa8features", b"\xa7context")
"""The keys of the fields in an encoded page; without any of them it need not be decoded."""


class ObservedColumn(NamedTuple):
    """The values of a feature in a batch. rows: of the items, or of the pages; values: as many, all of one type."""

    rows: list[int]
    values: list[float | str]


class ObservedFeatures:
    """The custom features of a batch, in the order first seen. A name with numbers and strings has two columns.

    pages, items: how many the batch has so far. columns: by source, then by name and type.
    """

    def __init__(self) -> None:
        self.pages = 0
        self.items = 0
        self.columns: dict[Source, dict[tuple[str, type], ObservedColumn]] = {source: {} for source in SOURCES}

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "ObservedFeatures":
        """Observe the pages of examples; only those that may have features are decoded."""
        observed = cls()
        for example in examples:
            encoded = bytes(example.page)
            if any(key in encoded for key in _KEYS):
                observed.add(decode_page(encoded))
            else:
                observed.pages += 1
                observed.items += len(example.labels)
        return observed

    def add(self, page: ResultPage) -> None:
        """Observe the next page."""
        if page.features:
            self._collect("page", self.pages, page.features)
        if page.context:
            self._collect("context", self.pages, page.context)
        for row, item in enumerate(page.items, self.items):
            if item.features:
                self._collect("item", row, item.features)
        self.pages += 1
        self.items += len(page.items)

    def rows_of(self, source: Source) -> int:
        """The number of items, or of pages, that a feature of the source could have a value for."""
        return self.items if source == "item" else self.pages

    def _collect(self, source: Source, row: int, features: Mapping[str, float | str]) -> None:
        columns = self.columns[source]
        for name, value in features.items():
            key = (name, str if type(value) is str else float)
            column = columns.get(key)
            if column is None:
                column = columns[key] = ObservedColumn([], [])
            column.rows.append(row)
            column.values.append(value)
