"""What the stages would say of a page that is asked for now: user and query from the tasks' stores, as of a time.

It is what both stages do when a page closes, by their own code, except that nothing is written and nobody waits: a
page of the log waits until all that closed before it has been counted, a page that is asked for takes what is there.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from prectr.state.aggregates import LevelCounts, LevelSums
from prectr.state.errors import StateError
from prectr.state.identity import IDENTITY_KEY, StoreIdentity
from prectr.state.read_only_view import read_live_store
from prectr.stream.aggregate.operator import META_KEY as AGGREGATE_META
from prectr.stream.aggregate.operator import QUERY_KEY, AggregateMeta
from prectr.stream.aggregate.query_state import NEVER_UPDATED as QUERY_NEVER
from prectr.stream.aggregate.query_state import QueryAggregates
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import MAX_WATERMARK, MIN_WATERMARK
from prectr.stream.join.state import META_KEY as JOIN_META
from prectr.stream.join.state import JoinMeta
from prectr.stream.join.user_state import NEVER_UPDATED as USER_NEVER
from prectr.stream.join.user_state import UserState
from prectr.stream.records import Example

MAX_ITEMS: Final = 200
"""Items that a page has at most: more candidates are asked for on several pages."""
REQUEST_ID: Final = "rank"
_TASK: Final = re.compile(r"(join|aggregate)-(\d+)")
_USER_KEY: Final = b"u"
"""Before the user's id: where `sessions` keeps an entry."""

_encode = msgspec.msgpack.Encoder().encode
_decode_join_meta = msgspec.msgpack.Decoder(JoinMeta).decode
_decode_aggregate_meta = msgspec.msgpack.Decoder(AggregateMeta).decode


class UserFeatures(NamedTuple):
    """A user as of a time. seen: whether anything is known. history: msgpack array of `UserClick`."""

    known: bool
    activity: int
    stats: LevelCounts
    history: msgspec.Raw


class QueryFeatures(NamedTuple):
    """A query as of a time. seen: whether anything is known. clicks: msgpack array of `QueryClick`."""

    known: bool
    stats: LevelCounts
    decayed: LevelSums
    clicks: msgspec.Raw


def user_features_at(stored: bytes | None, ts: int, config: PipelineConfig) -> UserFeatures:
    """What `sessions` would say of a user at `ts` (ms), from the entry as stored."""
    user = UserState(stored)
    user.expire(ts, round(config.user_ttl * 1000))
    stats = user.apply_closed_pages(ts)
    activity, history = user.activity_at(ts, config.history_clicks)
    return UserFeatures(user.entry.updated_at != USER_NEVER, activity, stats, msgspec.Raw(history))


def query_features_at(stored: bytes | None, ts: int, config: PipelineConfig) -> QueryFeatures:
    """What `queries` would say of a query at `ts` (ms), from the entry as stored."""
    query, half_life = QueryAggregates(stored), config.half_life * 1000
    query.expire(ts, round(config.query_ttl * 1000))
    query.apply_closed_pages(ts, half_life, config.query_clicks)
    return QueryFeatures(
        query.entry.updated_at != QUERY_NEVER,
        query.entry.totals,
        query.decayed_sums_at(ts, half_life),
        query.encoded_clicks(),
    )


class TaskStores:
    """The stores of a system's tasks, in folders that may be in use; where a task has several, the furthest.

    A task moves between processes, and the folder that it leaves behind stays as it was.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        """Find the tasks in each of the folders, or one below.

        Raises:
            StateError: there is none, one cannot be opened, or they are of several systems.
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
            raise StateError(
                f"{self._folder_names}: there is no task's state: name a folder that prectr stream has written"
            )

    def _check_identity(self, path: Path, identity: bytes | None) -> None:
        """Stores of a live system say whose they are; those of a replay do not."""
        if identity is None:
            return
        stored = msgspec.msgpack.decode(identity, type=StoreIdentity)
        if self._identity is None:
            self._identity = path, stored
            return
        first, known = self._identity
        if (stored.cluster, stored.config) != (known.cluster, known.config):
            raise StateError(f"{path} and {first} are of two systems: name state folders of one by --state-dir")

    @property
    def config(self) -> PipelineConfig | None:
        """The settings of the stages that keep the stores; None where the stores do not say."""
        return None if self._identity is None else msgspec.convert(self._identity[1].config, PipelineConfig)

    @property
    def max_event_time(self) -> int | None:
        """The largest event time that a `sessions` task has accepted (ms); None before the first event."""
        times = [meta.max_event_time for _, meta in self._joins.values() if meta.max_event_time is not None]
        return max(times, default=None)

    def user(self, user_id: str, ts: int, config: PipelineConfig) -> UserFeatures:
        """A user as of `ts`. StateError: the state of the user's task is in none of the folders."""
        (number,) = partitions_of([user_id], config.partitions)
        if number not in self._joins:
            raise self._missing("join", number, f"user {user_id!r}")
        (stored,) = read_live_store(self._joins[number][0], [_USER_KEY + user_id.encode()])
        return user_features_at(stored, ts, config)

    def query(self, query: str, ts: int, config: PipelineConfig) -> QueryFeatures:
        """A query (normalised) as of `ts`. StateError: the state of the query's task is in none of the folders."""
        path = self._aggregates[self._task_of(query, config)][0]
        (stored,) = read_live_store(path, [QUERY_KEY + query.encode()])
        return query_features_at(stored, ts, config)

    def complete_up_to(self, query: str, config: PipelineConfig) -> int | None:
        """Effective close (ms) up to which the query's pages have been counted; None: all that there were."""
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
            f"the state of task {stage}-{number}, which {owner} belongs to, is not in {self._folder_names}: name the state "
            "folder of the process that runs it too, by a further --state-dir"
        )


def _progress_of(meta: AggregateMeta) -> tuple[int, int]:
    """How far a task has read; embedded tasks count frames, those on Kafka offsets as well."""
    return meta.next_offset, sum(meta.next_sequences)


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """A query that a user asks at `ts` (ms), as typed, with what is known of both."""

    query: str
    user_id: str
    ts: int
    user_features: UserFeatures
    query_features: QueryFeatures


def request_examples(
    request: RankingRequest, items: Sequence[Item], config: PipelineConfig, label: Callable[[str, ResultPage], None]
) -> list[Example]:
    """The pages that show `items`, as the stages would put them out; nothing is clicked.

    items: 200 of them are a page. label: fills missing levels in place, as for a page of the log.
    """
    examples = []
    query, user_features, query_features = normalise_query(request.query), request.user_features, request.query_features
    for start in range(0, len(items), MAX_ITEMS):
        page_items = [
            msgspec.structs.replace(item, position=position)
            for position, item in enumerate(items[start : start + MAX_ITEMS], 1)
        ]
        page = ResultPage(REQUEST_ID, request.user_id, request.query, request.ts, page_items)
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
