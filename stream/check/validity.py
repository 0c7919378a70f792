"""Which lines are valid events, and why others are not."""

import re
from typing import Final

import msgspec

from prectr.stream.check.time_units import TimeUnits
from prectr.stream.events.contract import InvalidEvent

MAX_CAUSES: Final = 1_000
"""Different causes kept; a log with more has some of them counted under `other causes`."""
_EXAMPLE_BYTES: Final = 300
_VARIABLE: Final = re.compile(r"'[^']*'…?|`[^`]*…`|\d[\d,.]*")


class Cause(msgspec.Struct):
    """One cause for which lines are not valid. detail, place, example: of the first such line."""

    reason: str
    detail: str
    lines: int
    place: str
    example: str


class ValidityReport(msgspec.Struct):
    """Lines by what they are.

    Attributes:
        pages, empty_pages: all pages; those without items, which are counted and go no further.
        clicks: events of `click_actions`. other_actions: the others, by action.
        invalid, causes: lines that would be dead letters, and why, the most frequent first.
        units: times by unit; those of invalid lines as far as they are told by their magnitude.
    """

    pages: int
    empty_pages: int
    clicks: int
    other_actions: dict[str, int]
    invalid: int
    causes: list[Cause]
    units: dict[str, int]


class InvalidLines:
    """Counts invalid lines by cause, each with its first example; memory is bounded by the number of causes."""

    def __init__(self) -> None:
        self.count = 0
        self._causes: dict[tuple[str, str], Cause] = {}

    def add(self, event: InvalidEvent, line: bytes, place: str) -> None:
        """Count a line. place: its file and number."""
        self.count += 1
        # Values within the detail vary from line to line and are no cause of their own.
        key = (event.reason, _VARIABLE.sub("…", event.detail))
        cause = self._causes.get(key)
        if cause is None and len(self._causes) >= MAX_CAUSES:
            key = (event.reason, "other causes")
            cause = self._causes.get(key)
        if cause is None:
            example = line[:_EXAMPLE_BYTES].decode(errors="backslashreplace")
            detail = key[1] if key[1] == "other causes" else event.detail
            self._causes[key] = Cause(event.reason, detail, 1, place, example)
        else:
            cause.lines += 1

    def causes(self) -> list[Cause]:
        """Return the causes, the most frequent first."""
        return sorted(self._causes.values(), key=lambda cause: -cause.lines)


def validity_report(
    invalid: InvalidLines, units: TimeUnits, *, pages: int, empty_pages: int, clicks: int, other_actions: dict[str, int]
) -> ValidityReport:
    """Summarise the counts of a log."""
    valid = pages + clicks + sum(other_actions.values())
    return ValidityReport(
        pages, empty_pages, clicks, other_actions, invalid.count, invalid.causes(), units.counts(valid)
    )
