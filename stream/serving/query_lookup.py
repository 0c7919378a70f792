"""Looks one query up in the newest cut of a run."""

from pathlib import Path

import msgspec

from prectr.state.aggregates import LevelCounts, LevelSums
from prectr.state.errors import PrectrError
from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import QUERY_KEY
from prectr.stream.aggregate.query_state import decode_stored_query
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import QueryClick
from prectr.stream.replay.verify import newest_checkpoint


class QueryLookup(msgspec.Struct, frozen=True):
    """What the `queries` stage holds for a query.

    totals, decayed: impressions at levels 1 to 4, then clicks, of the pages folded in by the last page that asked;
    decayed is as of `since` (ms of effective close). pending: closed pages that no page has asked for yet, and
    pending_counts their impressions and clicks. last_clicks: newest last.
    """

    query: str
    partition: int
    updated_at: int
    decayed_to: int
    totals: LevelCounts
    decayed_sums: LevelSums
    unapplied_pages: int
    unapplied_counts: LevelCounts
    last_clicks: list[QueryClick]


def look_up_query(run_dir: Path, query: str) -> QueryLookup:
    """The state of `query` (normalised first) in the newest cut of `run_dir`.

    Raises:
        PrectrError: the run has not seen the query.
    """
    query_key = normalise_query(query)
    folder, checkpoint = newest_checkpoint(run_dir)
    (partition,) = partitions_of([query_key], int(checkpoint.config["partitions"]))
    store = Store(folder / "state" / f"queries-{partition}", StoreOptions(read_only=True))
    (value,) = store.get_many([QUERY_KEY + query_key.encode()])
    store.close()
    if value is None:
        raise PrectrError(
            f"query {query_key!r} is not in {run_dir}: no page of it had closed at the last checkpoint "
            "(the report lists the busiest queries)"
        )
    entry = decode_stored_query(value)
    unapplied = [sum(column) for column in zip(*(counts for _, counts, _ in entry.unapplied_pages), strict=True)] or [
        0
    ] * 8
    decode = msgspec.msgpack.Decoder(QueryClick).decode
    return QueryLookup(
        query_key,
        partition,
        entry.updated_at,
        entry.decayed_to,
        entry.totals,
        entry.decayed_sums,
        len(entry.unapplied_pages),
        msgspec.convert(unapplied, LevelCounts),
        [decode(click) for click in entry.recent_clicks],
    )
