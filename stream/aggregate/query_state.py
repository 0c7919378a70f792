"""The state of one query in stage `aggregate`: impressions and clicks by level, and recent clicks."""

from collections.abc import Sequence

import msgspec

from prectr.state.aggregates import (
    NEVER_UPDATED,
    NO_COUNTS,
    NO_SUMS,
    DecayedSums,
    LevelCounts,
    add_counts,
    decay,
    decay_and_add,
)
from prectr.state.encoding import append_bounded, encode_array

_encode = msgspec.msgpack.Encoder().encode


class StoredQuery(msgspec.Struct, array_like=True, gc=False):
    """A query's entry in the store. Times in ms.

    Attributes:
        updated_at: close time of the last page added.
        totals: impressions and clicks by level of the pages applied so far.
        decayed_sums: the same, decayed to `decayed_to`, one for each half-life (reconstruction: a page counts from its
            close time); empty before the first page is applied.
        decayed_to: close time of the last page applied.
        recent_clicks: the last clicks applied, each an encoded `QueryClick`.
        unapplied_pages: (close time, counts, clicks) of pages not yet applied, oldest first.
    """

    updated_at: int = NEVER_UPDATED
    totals: LevelCounts = NO_COUNTS
    decayed_sums: DecayedSums = ()
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
        """Encode the entry for the store."""
        return _encode(self.entry)

    def expire(self, ts: int, time_to_live: int) -> None:
        """Reset the entry if a record at `ts` finds it older than its time to live (both ms)."""
        if self.entry.updated_at != NEVER_UPDATED and ts - self.entry.updated_at > time_to_live:
            self.entry = StoredQuery()
            self.cached_clicks = None

    def apply_closed_pages(self, ts: int, half_lives: Sequence[float], max_clicks: int) -> None:
        """Apply every page whose close time is ≤ ts (ms); a page once applied stays applied."""
        entry = self.entry
        unapplied = entry.unapplied_pages
        applied = 0
        for closes_at, counts, clicks in unapplied:
            if closes_at > ts:
                break
            entry.totals = add_counts(entry.totals, counts)
            entry.decayed_sums = decay_and_add(
                entry.decayed_sums or (NO_SUMS,) * len(half_lives), entry.decayed_to, closes_at, half_lives, counts
            )
            entry.decayed_to = closes_at
            if clicks:
                append_bounded(entry.recent_clicks, clicks, max_clicks)
                self.cached_clicks = None
            applied += 1
        if applied:
            del unapplied[:applied]

    def decayed_sums_at(self, ts: int, half_lives: Sequence[float]) -> DecayedSums:
        """Return the decayed sums as of `ts`, one for each half-life (ms)."""
        entry = self.entry
        if not entry.decayed_sums:
            return (NO_SUMS,) * len(half_lives)
        return decay(entry.decayed_sums, entry.decayed_to, ts, half_lives)

    def encoded_clicks(self) -> msgspec.Raw:
        """Return the recent clicks as a msgpack array of `QueryClick`, oldest first."""
        if self.cached_clicks is None:
            self.cached_clicks = msgspec.Raw(encode_array(self.entry.recent_clicks))
        return self.cached_clicks

    def add_closed_page(self, closes_at: int, counts: LevelCounts, clicks: tuple[bytes, ...]) -> None:
        """Queue a closed page to be applied."""
        self.entry.unapplied_pages.append((closes_at, counts, clicks))
        self.entry.updated_at = max(self.entry.updated_at, closes_at)
