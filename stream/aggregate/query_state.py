"""What the `queries` stage keeps about one query."""

from typing import Final

import msgspec

from prectr.state.aggregates import NO_COUNTS, NO_SUMS, LevelCounts, LevelSums, add_counts, add_sums, decayed
from prectr.state.rings import append_bounded, encode_array

_encode = msgspec.msgpack.Encoder().encode

NEVER: Final = -1


class QueryEntry(msgspec.Struct, array_like=True, gc=False):
    """A query's entry in the store. Times in ms.

    updated: effective close of the last page taken. totals: impressions and clicks by level of pages folded in.
    sums: the same, decayed to `since`, the effective close of the last page folded in (reconstruction: a page
    counts from its effective close). ring: the last clicks folded in, encoded. pending: (effective close, counts,
    clicks) of pages not folded in yet, oldest first.
    """

    updated: int = NEVER
    totals: LevelCounts = NO_COUNTS
    sums: LevelSums = NO_SUMS
    since: int = 0
    ring: list[bytes] = []
    pending: list[tuple[int, LevelCounts, tuple[bytes, ...]]] = []


decode_query_entry = msgspec.msgpack.Decoder(QueryEntry).decode


class Query:
    """One query in memory."""

    __slots__ = ("entry", "snapshot")

    def __init__(self, stored: bytes | None) -> None:
        self.entry = QueryEntry() if stored is None else decode_query_entry(stored)
        self.snapshot: msgspec.Raw | None = None

    def encoded(self) -> bytes:
        """The entry as stored."""
        return _encode(self.entry)

    def expire(self, ts: int, time_to_live: int) -> None:
        """Forget everything where a record at `ts` finds the entry too old."""
        if self.entry.updated != NEVER and ts - self.entry.updated > time_to_live:
            self.entry = QueryEntry()
            self.snapshot = None

    def fold(self, ts: int, half_life: float, ring: int) -> None:
        """Fold in every page whose effective close is ≤ ts; the fold never goes back."""
        entry = self.entry
        pending = entry.pending
        folded = 0
        for closes_at, counts, clicked in pending:
            if closes_at > ts:
                break
            entry.totals = add_counts(entry.totals, counts)
            entry.sums = add_sums(decayed(entry.sums, entry.since, closes_at, half_life), counts)
            entry.since = closes_at
            if clicked:
                append_bounded(entry.ring, clicked, ring)
                self.snapshot = None
            folded += 1
        if folded:
            del pending[:folded]

    def decayed_at(self, ts: int, half_life: float) -> LevelSums:
        """The decayed sums as of `ts`."""
        return decayed(self.entry.sums, self.entry.since, ts, half_life)

    def clicks(self) -> msgspec.Raw:
        """The ring as a msgpack array of `QueryClick`, oldest first."""
        if self.snapshot is None:
            self.snapshot = msgspec.Raw(encode_array(self.entry.ring))
        return self.snapshot

    def take(self, closes_at: int, counts: LevelCounts, clicked: tuple[bytes, ...]) -> None:
        """Queue a page for the fold."""
        self.entry.pending.append((closes_at, counts, clicked))
        self.entry.updated = max(self.entry.updated, closes_at)
