"""Looks up one query in the newest checkpoint of a run."""

from pathlib import Path

import msgspec

from prectr.state.aggregates import NO_SUMS, DecayedSums, LevelCounts
from prectr.state.errors import PrectrError
from prectr.state.read_only_view import read_live_store
from prectr.stream.aggregate.operator import QUERY_KEY
from prectr.stream.aggregate.query_state import decode_stored_query
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.records import QueryClick
from prectr.stream.replay.run_checkpoint import ReplayCheckpoint
from prectr.stream.replay.verify import read_newest


class QueryLookup(msgspec.Struct, frozen=True):
    """The state of a query in stage `aggregate`.

    Attributes:
        partition: of the query's task.
        updated_at: close time of the query's last page (ms).
        totals: impressions at levels 1 to 4, then clicks, of the pages applied so far.
        decayed_sums: the same, decayed to `decayed_to` (ms), one for each of `half_lives`, which are in seconds.
        unapplied_pages: number of closed pages not yet applied; `unapplied_counts` are their impressions and clicks.
        last_clicks: newest last.
    """

    query: str
    partition: int
    updated_at: int
    decayed_to: int
    totals: LevelCounts
    half_lives: tuple[float, ...]
    decayed_sums: DecayedSums
    unapplied_pages: int
    unapplied_counts: LevelCounts
    last_clicks: list[QueryClick]


def look_up_query(run_dir: Path, query: str) -> QueryLookup:
    """Return the state of `query`, which is normalised first, in the newest checkpoint of `run_dir`.

    Raises:
        PrectrError: no page of the query had closed by then.
    """
    query_key = normalise_query(query)

    def read(folder: Path, checkpoint: ReplayCheckpoint) -> tuple[int, bytes | None]:
        (partition,) = partitions_of([query_key], int(checkpoint.config["partitions"]))
        (value,) = read_live_store(folder / "state" / f"aggregate-{partition}", [QUERY_KEY + query_key.encode()])
        return partition, value

    checkpoint, (partition, value) = read_newest(run_dir, read)
    if value is None:
        raise PrectrError(
            f"query {query_key!r} is not in {run_dir}: no page of it had closed at the last checkpoint "
            "(the report lists the most frequent queries)"
        )
    entry = decode_stored_query(value)
    half_lives = msgspec.json.decode(checkpoint.config["half_lives"], type=tuple[float, ...])
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
        half_lives,
        entry.decayed_sums or (NO_SUMS,) * len(half_lives),
        len(entry.unapplied_pages),
        msgspec.convert(unapplied, LevelCounts),
        [decode(click) for click in entry.recent_clicks],
    )
