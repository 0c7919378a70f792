"""What became of the rows of a conversion: counts, and an example of each reason for which a row was left out."""

from typing import Final

import msgspec

_EXAMPLE_CHARACTERS: Final = 200


class Unmappable(Exception):
    """A row, or a part of it, cannot become an event. reason: a few words joined by underscores."""

    def __init__(self, reason: str, detail: str) -> None:
        """`detail`: the value seen and what is wrong with it."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Skipped(msgspec.Struct):
    """Rows left out for one reason. place: file and row of the first one; detail: what was wrong with it."""

    count: int
    place: str
    detail: str


class ConversionReport(msgspec.Struct):
    """What a conversion made. Counts are of rows read, events written and rows or events left out by reason.

    clicks_on_page: clicks on an item of the page that they name, where the converter looks pages up; None elsewhere.
    """

    rows: int = 0
    pages: int = 0
    empty_pages: int = 0
    impressions: int = 0
    clicks: int = 0
    clicks_on_page: int | None = None
    clicks_off_page: int | None = None
    clicks_without_page: int | None = None
    skipped: dict[str, Skipped] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)

    def skip(self, reason: str, place: str, detail: str) -> None:
        """Count a row or event that is left out; the first of a reason is kept as its example."""
        known = self.skipped.get(reason)
        if known is None:
            self.skipped[reason] = Skipped(1, place, detail[:_EXAMPLE_CHARACTERS])
        else:
            known.count += 1
