"""Point-in-time features for serving: the state of a user and a query as of a time, from the tasks' stores.

They are computed by the code of the stages, except that nothing is written and nothing is waited for: a page of the log
waits until every page that closed before it has been counted, a ranking request uses the counts that are there.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.state.aggregates import NEVER_UPDATED, DecayedSums, LevelCounts
from prectr.state.errors import Remedy, StateError
from prectr.state.identity import IDENTITY_KEY, StoreIdentity, decode_identity
from prectr.state.read_only_view import read_live_store
from prectr.stream.aggregate.operator import QUERY_KEY
from prectr.stream.aggregate.query_state import QueryAggregates
from prectr.stream.aggregate.source_frames import META_KEY as AGGREGATE_META
from prectr.stream.aggregate.source_frames import AggregateMeta
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.state import META_KEY as JOIN_META
from prectr.stream.join.state import JoinMeta
from prectr.stream.join.user_cache import USER_KEY
from prectr.stream.join.user_state import UserState
from prectr.stream.records import Example

MAX_ITEMS: Final = 200
"""Maximum number of items on a page; more candidates are spread over several pages."""
REQUEST_ID: Final = "rank"
_TASK: Final = re.compile(r"(join|aggregate)-(\d+)")

_encode = msgspec.msgpack.Encoder().encode
_decode_join_meta = msgspec.msgpack.Decoder(JoinMeta).decode
_decode_aggregate_meta = msgspec.msgpack.Decoder(AggregateMeta).decode


class UserFeatures(NamedTuple):
    """A user as of a time. `known`: whether the store has an entry. `history`: msgpack array of `UserClick`."""

    known: bool
    activity: int
    stats: LevelCounts
    history: msgspec.Raw


class QueryFeatures(NamedTuple):
    """A query as of a time.

    known: whether the store has an entry. decayed: one for each half-life of the settings. clicks: msgpack array of
    `QueryClick`.
    """

    known: bool
    stats: LevelCounts
    decayed: DecayedSums
    clicks: msgspec.Raw


def user_features_at(stored: bytes | None, ts: int, config: PipelineConfig) -> UserFeatures:
    """Return a user's features at `ts` (ms) from the entry in a `join` task's store."""
    user = UserState(stored)
    user.expire(ts, round(config.user_ttl * 1000))
    stats = user.apply_closed_pages(ts)
    activity, history = user.activity_at(ts, config.history_clicks)
    return UserFeatures(user.entry.updated_at != NEVER_UPDATED, activity, stats, msgspec.Raw(history))


def query_features_at(stored: bytes | None, ts: int, config: PipelineConfig) -> QueryFeatures:
    """Return a query's features at `ts` (ms) from the entry in an `aggregate` task's store."""
    query = QueryAggregates(stored)
    half_lives = tuple(half_life * 1000 for half_life in config.half_lives)
    query.expire(ts, round(config.query_ttl * 1000))
    query.apply_closed_pages(ts, half_lives, config.query_clicks)
    return QueryFeatures(
        query.entry.updated_at != NEVER_UPDATED,
        query.entry.totals,
        query.decayed_sums_at(ts, half_lives),
        query.encoded_clicks(),
    )


class TaskStores:
    """The stores of a system's tasks, which may be in use by running processes.

    A task that has moved between processes has left an older store behind: the most recent one of a task is used.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        """Find the tasks' stores directly in each of the folders, or one level below.

        Raises:
            StateError: there is no store, one cannot be opened, or they belong to different systems.
        """
        folders = list(folders)
        self._folder_names = ", ".join(str(folder) for folder in folders)
        self._joins: dict[int, tuple[Path, JoinMeta]] = {}
        self._aggregates: dict[int, tuple[Path, AggregateMeta]] = {}
        self._identity: tuple[Path, StoreIdentity] | None = None
        for path in sorted({path for folder in folders for path in (*folder.glob("*"), *folder.glob("*/*"))}):
            match = _TASK.fullmatch(path.name)
            if match is None or not path.is_dir():
                continue
            number = int(match[2])
            if match[1] == "join":
                identity, stored = read_live_store(path, [IDENTITY_KEY, JOIN_META])
                join_meta = JoinMeta() if stored is None else _decode_join_meta(stored)
                if number not in self._joins or join_meta.next_offset > self._joins[number][1].next_offset:
                    self._joins[number] = path, join_meta
            else:
                identity, stored = read_live_store(path, [IDENTITY_KEY, AGGREGATE_META])
                aggregate_meta = AggregateMeta() if stored is None else _decode_aggregate_meta(stored)
                if number not in self._aggregates or _progress_of(aggregate_meta) > _progress_of(
                    self._aggregates[number][1]
                ):
                    self._aggregates[number] = path, aggregate_meta
            self._check_identity(path, identity)
        if not self._joins and not self._aggregates:
            raise StateError(f"{self._folder_names}: contains no state: name the state folder of a stream worker")

    def _check_identity(self, path: Path, identity: bytes | None) -> None:
        """Check that all stores belong to one system; stores of a replay have no identity."""
        if identity is None:
            return
        stored = decode_identity(identity)
        if self._identity is None:
            self._identity = path, stored
            return
        first, known = self._identity
        if (stored.cluster, stored.config) != (known.cluster, known.config):
            raise StateError(f"{path} and {first} belong to different systems: name state folders of one system")

    @property
    def config(self) -> PipelineConfig | None:
        """The pipeline settings stored with the stores; None for stores of a replay."""
        return None if self._identity is None else msgspec.convert(self._identity[1].config, PipelineConfig)

    @property
    def max_event_time(self) -> int | None:
        """The largest event time that a `join` task has come to (ms); None before the first event."""
        times = [meta.clock.best_time for _, meta in self._joins.values()]
        return max((time for time in times if time is not None), default=None)

    def user(self, user_id: str, ts: int, config: PipelineConfig) -> UserFeatures:
        """Return a user as of `ts` (ms); raises StateError if its task's store is not found."""
        (number,) = partitions_of([user_id], config.partitions)
        if number not in self._joins:
            raise self._missing("join", number, f"user {user_id!r}")
        (stored,) = read_live_store(self._joins[number][0], [USER_KEY + user_id.encode()])
        return user_features_at(stored, ts, config)

    def query(self, query: str, ts: int, config: PipelineConfig) -> QueryFeatures:
        """Return a normalised query as of `ts` (ms); raises StateError if its task's store is not found."""
        path = self._aggregates[self._task_of(query, config)][0]
        (stored,) = read_live_store(path, [QUERY_KEY + query.encode()])
        return query_features_at(stored, ts, config)

    def complete_up_to(self, query: str, config: PipelineConfig) -> int | None:
        """Return the close time (ms) up to which the query's pages are counted; None if all of them are."""
        merged = self._aggregates[self._task_of(query, config)][1].merged_watermark
        watermark = MIN_WATERMARK if merged is None else merged.watermark
        return None if watermark >= MAX_WATERMARK else watermark

    def _task_of(self, query: str, config: PipelineConfig) -> int:
        (number,) = partitions_of([query], config.partitions)
        if number not in self._aggregates:
            raise self._missing("aggregate", number, f"query {query!r}")
        return number

    def _missing(self, stage: str, number: int, owner: str) -> StateError:
        return StateError(
            f"the state of task {stage}-{number}, which {owner} belongs to, is not in {self._folder_names}",
            Remedy.ADDITIONAL_STATE_DIR,
        )


def _progress_of(meta: AggregateMeta) -> tuple[int, int]:
    """How far a task has read: by frames, and on Kafka also by offsets."""
    return meta.next_offset, sum(meta.next_sequences)


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """A query as typed by a user at `ts` (ms), with the features of both, and custom ones of the page to be shown."""

    query: str
    user_id: str
    ts: int
    user_features: UserFeatures
    query_features: QueryFeatures
    features: dict[str, float | str] | None = None
    context: dict[str, str] | None = None


def request_examples(
    request: RankingRequest, items: Sequence[Item], config: PipelineConfig, label: Callable[[str, ResultPage], None]
) -> list[Example]:
    """Return unclicked examples for the candidates `items`, as the stages would emit them, up to 200 items per page.

    Args:
        label: fills in missing relevance levels in place, as for a page of the log.
    """
    examples = []
    query, user_features, query_features = normalise_query(request.query), request.user_features, request.query_features
    for start in range(0, len(items), MAX_ITEMS):
        page_items = [
            msgspec.structs.replace(item, position=position)
            for position, item in enumerate(items[start : start + MAX_ITEMS], 1)
        ]
        page = ResultPage(
            REQUEST_ID,
            request.user_id,
            request.query,
            request.ts,
            page_items,
            context=request.context,
            features=request.features,
        )
        label(query, page)
        examples.append(
            Example(
                closes_at=request.ts + round(config.attribution_window * 1000),
                request_id=REQUEST_ID,
                user_id=request.user_id,
                ts=request.ts,
                query=query,
                labels=bytes(len(page_items)),
                levels=bytes(item.relevance or 0 for item in page_items),
                user_activity=user_features.activity,
                user_stats=user_features.stats,
                query_stats=query_features.stats,
                query_decayed=query_features.decayed,
                history=user_features.history,
                query_clicks=query_features.clicks,
                page=msgspec.Raw(_encode(page)),
            )
        )
    return examples
