"""Looks one query up in the newest cut of a run."""

from pathlib import Path

import msgspec

from prectr.state.aggregates import LevelCounts, LevelSums
from prectr.state.errors import PrectrError
from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import QUERY_KEY
from prectr.stream.aggregate.query_state import decode_query_entry
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import QueryClick
from prectr.stream.replay.verify import newest_cut


class QueryState(msgspec.Struct, frozen=True):
    """What the `queries` stage holds for a query.

    totals, decayed: impressions at levels 1 to 4, then clicks, of the pages folded in by the last page that asked;
    decayed is as of `since` (ms of effective close). pending: closed pages that no page has asked for yet, and
    pending_counts their impressions and clicks. last_clicks: newest last.
    """

    query: str
    partition: int
    updated: int
    since: int
    totals: LevelCounts
    decayed: LevelSums
    pending: int
    pending_counts: LevelCounts
    last_clicks: list[QueryClick]


def look_up_query(run_dir: Path, query: str) -> QueryState:
    """The state of `query` (normalised first) in the newest cut of `run_dir`.

    Raises:
        PrectrError: the run has not seen the query.
    """
    name = normalise_query(query)
    folder, cut = newest_cut(run_dir)
    (partition,) = partitions_of([name], int(cut.config["partitions"]))
    store = Store(folder / "state" / f"queries-{partition}", StoreOptions(read_only=True))
    (value,) = store.get_many([QUERY_KEY + name.encode()])
    store.close()
    if value is None:
        raise PrectrError(
            f"query {name!r} is not in {run_dir}: no page of it had closed at the last checkpoint "
            "(the report lists the busiest queries)"
        )
    entry = decode_query_entry(value)
    pending = [sum(column) for column in zip(*(counts for _, counts, _ in entry.pending), strict=True)] or [0] * 8
    decode = msgspec.msgpack.Decoder(QueryClick).decode
    return QueryState(
        name,
        partition,
        entry.updated,
        entry.since,
        entry.totals,
        entry.sums,
        len(entry.pending),
        msgspec.convert(pending, LevelCounts),
        [decode(click) for click in entry.ring],
    )
