"""What the `queries` stage keeps about one query."""

from typing import Final

import msgspec

from prectr.state.aggregates import NO_COUNTS, NO_SUMS, LevelCounts, LevelSums, add_counts, add_sums, decay
from prectr.state.rings import append_bounded, encode_array

_encode = msgspec.msgpack.Encoder().encode

NEVER_UPDATED: Final = -1


class StoredQuery(msgspec.Struct, array_like=True, gc=False):
    """A query's entry in the store. Times in ms.

    updated: effective close of the last page taken. totals: impressions and clicks by level of pages folded in.
    sums: the same, decayed to `since`, the effective close of the last page folded in (reconstruction: a page
    counts from its effective close). ring: the last clicks folded in, encoded. pending: (effective close, counts,
    clicks) of pages not folded in yet, oldest first.
    """

    updated_at: int = NEVER_UPDATED
    totals: LevelCounts = NO_COUNTS
    decayed_sums: LevelSums = NO_SUMS
    decayed_to: int = 0
    recent_clicks: list[bytes] = []
    unapplied_pages: list[tuple[int, LevelCounts, tuple[bytes, ...]]] = []


decode_stored_query = msgspec.msgpack.Decoder(StoredQuery).decode


class QueryAggregates:
    """One query in memory."""

    __slots__ = ("cached_clicks", "entry")

    def __init__(self, stored: bytes | None) -> None:
        self.entry = StoredQuery() if stored is None else decode_stored_query(stored)
        self.cached_clicks: msgspec.Raw | None = None

    def encode(self) -> bytes:
        """The entry as stored."""
        return _encode(self.entry)

    def expire(self, ts: int, time_to_live: int) -> None:
        """Forget everything where a record at `ts` finds the entry too old."""
        if self.entry.updated_at != NEVER_UPDATED and ts - self.entry.updated_at > time_to_live:
            self.entry = StoredQuery()
            self.cached_clicks = None

    def apply_closed_pages(self, ts: int, half_life: float, max_clicks: int) -> None:
        """Fold in every page whose effective close is ≤ ts; the fold never goes back."""
        entry = self.entry
        unapplied = entry.unapplied_pages
        applied = 0
        for closes_at, counts, clicks in unapplied:
            if closes_at > ts:
                break
            entry.totals = add_counts(entry.totals, counts)
            entry.decayed_sums = add_sums(decay(entry.decayed_sums, entry.decayed_to, closes_at, half_life), counts)
            entry.decayed_to = closes_at
            if clicks:
                append_bounded(entry.recent_clicks, clicks, max_clicks)
                self.cached_clicks = None
            applied += 1
        if applied:
            del unapplied[:applied]

    def decayed_sums_at(self, ts: int, half_life: float) -> LevelSums:
        """The decayed sums as of `ts`."""
        return decay(self.entry.decayed_sums, self.entry.decayed_to, ts, half_life)

    def encoded_clicks(self) -> msgspec.Raw:
        """The ring as a msgpack array of `QueryClick`, oldest first."""
        if self.cached_clicks is None:
            self.cached_clicks = msgspec.Raw(encode_array(self.entry.recent_clicks))
        return self.cached_clicks

    def add_closed_page(self, closes_at: int, counts: LevelCounts, clicks: tuple[bytes, ...]) -> None:
        """Queue a page for the fold."""
        self.entry.unapplied_pages.append((closes_at, counts, clicks))
        self.entry.updated_at = max(self.entry.updated_at, closes_at)
