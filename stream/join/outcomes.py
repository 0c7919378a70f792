"""Outcome counts: what became of every record, for the check of conservation."""

from typing import Annotated, TypeVar

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class PageOutcomes(msgspec.Struct, gc=False):
    """Outcomes of pages; received = open + emitted + empty + duplicate + dead_letter, at any time."""

    received: Count = msgspec.field(default=0, name="in")
    emitted: Count = 0
    open: Count = 0
    empty: Count = 0
    duplicate: Count = 0
    dead_letter: Count = 0


class ClickOutcomes(msgspec.Struct, gc=False):
    """Outcomes of clicks; received is the sum of the others, at any time."""

    received: Count = msgspec.field(default=0, name="in")
    joined: Count = 0
    duplicate: Count = 0
    late: Count = 0
    orphan: Count = 0
    foreign: Count = 0
    waiting: Count = 0
    other_action: Count = 0
    dead_letter: Count = 0


class Outcomes(msgspec.Struct, gc=False):
    """Cumulative counts of one `join` task, or the sum of several. `unreadable`: neither page nor click."""

    pages: PageOutcomes = msgspec.field(default_factory=PageOutcomes)
    clicks: ClickOutcomes = msgspec.field(default_factory=ClickOutcomes)
    unreadable: Count = 0

    def __add__(self, other: "Outcomes") -> "Outcomes":
        return Outcomes(
            _add_counts(self.pages, other.pages),
            _add_counts(self.clicks, other.clicks),
            self.unreadable + other.unreadable,
        )

    @property
    def records(self) -> int:
        """Number of records received: pages, clicks and unreadable ones."""
        return self.pages.received + self.clicks.received + self.unreadable

    def imbalances(self) -> list[str]:
        """Return a sentence for each sum that does not add up; empty if every record is accounted for."""
        messages = []
        for kind, counts in (("pages", self.pages), ("clicks", self.clicks)):
            counts_by_outcome = msgspec.structs.asdict(counts)
            received = counts_by_outcome.pop("received")
            if received != sum(counts_by_outcome.values()):
                parts = " + ".join(f"{count} {name}" for name, count in counts_by_outcome.items())
                messages.append(f"{kind}: {received} in, but {parts} = {sum(counts_by_outcome.values())}")
        return messages


_Counts = TypeVar("_Counts", PageOutcomes, ClickOutcomes)


def _add_counts(a: _Counts, b: _Counts) -> _Counts:
    return type(a)(*(x + y for x, y in zip(msgspec.structs.astuple(a), msgspec.structs.astuple(b), strict=True)))
