"""Results of a conversion: counts, and an example of each reason for which a row was left out."""

from typing import Final

import msgspec

_EXAMPLE_CHARACTERS: Final = 200
_MAX_REASONS: Final = 200
"""Reasons that are kept apart: some contain names of the input, such as actions."""


class Unmappable(Exception):
    """A row, or a part of it, cannot become an event. reason: a few words joined by underscores."""

    def __init__(self, reason: str, detail: str) -> None:
        """`detail`: the value and the error in it."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Skipped(msgspec.Struct):
    """Rows, events or fields left out for one reason. place: file and row of the first one; detail: its value."""

    count: int
    place: str
    detail: str


class ConversionReport(msgspec.Struct):
    """Counts of rows read, of events written, and of rows, events and fields left out by reason.

    clicks_on_page, clicks_off_page, clicks_without_page: of UBI, clicks on an item of their page, on another item, and
    those for which there is no page; None for other sources, whose clicks name their page.
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

    def skip(self, reason: str, place: str, detail: str) -> None:
        """Count a row, event or field that is left out; the first one of a reason is kept as its example."""
        if reason not in self.skipped and len(self.skipped) >= _MAX_REASONS:
            reason = "other_reasons"
        known = self.skipped.get(reason)
        if known is None:
            self.skipped[reason] = Skipped(1, place, detail[:_EXAMPLE_CHARACTERS])
        else:
            known.count += 1
