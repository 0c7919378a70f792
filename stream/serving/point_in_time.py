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
from prectr.state.read_only_view import peek
from prectr.stream.aggregate.operator import META_KEY as QUERIES_META
from prectr.stream.aggregate.operator import QUERY_KEY, QueriesMeta
from prectr.stream.aggregate.query_state import NEVER as QUERY_NEVER
from prectr.stream.aggregate.query_state import Query
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Impression, Item
from prectr.stream.events.partition import partitions_of
from prectr.stream.events.query_key import normalise_query
from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.join.state import META_KEY as SESSIONS_META
from prectr.stream.join.state import SessionsMeta
from prectr.stream.join.user_state import NEVER as USER_NEVER
from prectr.stream.join.user_state import User
from prectr.stream.kafka.tasks.task import IDENTITY_KEY, StoreIdentity
from prectr.stream.records import Example

MOST_ITEMS: Final = 200
"""Items that a page has at most: more candidates are asked for on several pages."""
REQUEST_ID: Final = "rank"
_TASK: Final = re.compile(r"(sessions|queries)-(\d+)")
_USER_KEY: Final = b"u"
"""Before the user's id: where `sessions` keeps an entry."""

_encode = msgspec.msgpack.Encoder().encode
_decode_sessions = msgspec.msgpack.Decoder(SessionsMeta).decode
_decode_queries = msgspec.msgpack.Decoder(QueriesMeta).decode


class UserThen(NamedTuple):
    """A user as of a time. seen: whether anything is known. history: msgpack array of `UserClick`."""

    seen: bool
    activity: int
    stats: LevelCounts
    history: msgspec.Raw


class QueryThen(NamedTuple):
    """A query as of a time. seen: whether anything is known. clicks: msgpack array of `QueryClick`."""

    seen: bool
    stats: LevelCounts
    decayed: LevelSums
    clicks: msgspec.Raw


def user_then(stored: bytes | None, ts: int, config: PipelineConfig) -> UserThen:
    """What `sessions` would say of a user at `ts` (ms), from the entry as stored."""
    user = User(stored)
    user.expire(ts, round(config.user_ttl * 1000))
    stats = user.fold_pages(ts)
    activity, history = user.activity_at(ts, config.history_clicks)
    return UserThen(user.entry.updated != USER_NEVER, activity, stats, msgspec.Raw(history))


def query_then(stored: bytes | None, ts: int, config: PipelineConfig) -> QueryThen:
    """What `queries` would say of a query at `ts` (ms), from the entry as stored."""
    query, half_life = Query(stored), config.half_life * 1000
    query.expire(ts, round(config.query_ttl * 1000))
    query.fold(ts, half_life, config.query_clicks)
    return QueryThen(
        query.entry.updated != QUERY_NEVER, query.entry.totals, query.decayed_at(ts, half_life), query.clicks()
    )


class Stores:
    """The stores of a system's tasks, in folders that may be in use; where a task has several, the furthest.

    A task moves between processes, and the folder that it leaves behind stays as it was.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        """Find the tasks in each of the folders, or one below.

        Raises:
            StateError: there is none, one cannot be opened, or they are of several systems.
        """
        folders = list(folders)
        self._named = ", ".join(str(folder) for folder in folders)
        self._sessions: dict[int, tuple[Path, SessionsMeta]] = {}
        self._queries: dict[int, tuple[Path, QueriesMeta]] = {}
        self._owner: tuple[Path, StoreIdentity] | None = None
        for path in sorted({path for folder in folders for path in (*folder.glob("*"), *folder.glob("*/*"))}):
            match = _TASK.fullmatch(path.name)
            if match is None or not path.is_dir():
                continue
            number = int(match[2])
            if match[1] == "sessions":
                identity, stored = peek(path, [IDENTITY_KEY, SESSIONS_META])
                found = SessionsMeta() if stored is None else _decode_sessions(stored)
                if number not in self._sessions or found.position > self._sessions[number][1].position:
                    self._sessions[number] = path, found
            else:
                identity, stored = peek(path, [IDENTITY_KEY, QUERIES_META])
                meta = QueriesMeta() if stored is None else _decode_queries(stored)
                if number not in self._queries or _read(meta) > _read(self._queries[number][1]):
                    self._queries[number] = path, meta
            self._check_owner(path, identity)
        if not self._sessions and not self._queries:
            raise StateError(f"{self._named}: there is no task's state: name a folder that prectr stream has written")

    def _check_owner(self, path: Path, identity: bytes | None) -> None:
        """Stores of a live system say whose they are; those of a replay do not."""
        if identity is None:
            return
        owner = msgspec.msgpack.decode(identity, type=StoreIdentity)
        if self._owner is None:
            self._owner = path, owner
            return
        first, known = self._owner
        if (owner.cluster, owner.config) != (known.cluster, known.config):
            raise StateError(f"{path} and {first} are of two systems: name state folders of one by --state-dir")

    @property
    def config(self) -> PipelineConfig | None:
        """The settings of the stages that keep the stores; None where the stores do not say."""
        return None if self._owner is None else msgspec.convert(self._owner[1].config, PipelineConfig)

    @property
    def newest(self) -> int | None:
        """The largest event time that a `sessions` task has accepted (ms); None before the first event."""
        times = [meta.accepted for _, meta in self._sessions.values() if meta.accepted is not None]
        return max(times, default=None)

    def user(self, user_id: str, ts: int, config: PipelineConfig) -> UserThen:
        """A user as of `ts`. StateError: the state of the user's task is in none of the folders."""
        (number,) = partitions_of([user_id], config.partitions)
        if number not in self._sessions:
            raise self._missing("sessions", number, f"user {user_id!r}")
        (stored,) = peek(self._sessions[number][0], [_USER_KEY + user_id.encode()])
        return user_then(stored, ts, config)

    def query(self, query: str, ts: int, config: PipelineConfig) -> QueryThen:
        """A query (normalised) as of `ts`. StateError: the state of the query's task is in none of the folders."""
        path = self._queries[self._task_of(query, config)][0]
        (stored,) = peek(path, [QUERY_KEY + query.encode()])
        return query_then(stored, ts, config)

    def counted_to(self, query: str, config: PipelineConfig) -> int | None:
        """Effective close (ms) up to which the query's pages have been counted; None: all that there were."""
        merge = self._queries[self._task_of(query, config)][1].merge
        line = BEFORE_TIME if merge is None else merge.line
        return None if line >= END_OF_TIME else line

    def _task_of(self, query: str, config: PipelineConfig) -> int:
        (number,) = partitions_of([query], config.partitions)
        if number not in self._queries:
            raise self._missing("queries", number, f"query {query!r}")
        return number

    def _missing(self, stage: str, number: int, of: str) -> StateError:
        return StateError(
            f"the state of task {stage}-{number}, which {of} belongs to, is not in {self._named}: name the state "
            "folder of the process that runs it too, by a further --state-dir"
        )


def _read(meta: QueriesMeta) -> tuple[int, int]:
    """How far a task has read; embedded tasks count frames, those on Kafka offsets as well."""
    return meta.offset, sum(meta.positions)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that a user asks at `ts` (ms), as typed, with what is known of both."""

    query: str
    user_id: str
    ts: int
    of_user: UserThen
    of_query: QueryThen


def asked_examples(
    asked: Asked, items: Sequence[Item], config: PipelineConfig, label: Callable[[str, Impression], None]
) -> list[Example]:
    """The pages that show `items`, as the stages would put them out; nothing is clicked.

    items: 200 of them are a page. label: fills missing levels in place, as for a page of the log.
    """
    examples = []
    query, user, of_query = normalise_query(asked.query), asked.of_user, asked.of_query
    for start in range(0, len(items), MOST_ITEMS):
        shown = [
            msgspec.structs.replace(item, position=place)
            for place, item in enumerate(items[start : start + MOST_ITEMS], 1)
        ]
        page = Impression(REQUEST_ID, asked.user_id, asked.query, asked.ts, shown)
        label(query, page)
        examples.append(
            Example(
                closes_at=asked.ts + round(config.attribution_window * 1000),
                request_id=REQUEST_ID,
                user_id=asked.user_id,
                ts=asked.ts,
                query=query,
                labels=bytes(len(shown)),
                levels=bytes(item.relevance or 0 for item in shown),
                user_activity=user.activity,
                user_stats=user.stats,
                query_stats=of_query.stats,
                query_decayed=of_query.decayed,
                history=user.history,
                query_clicks=of_query.clicks,
                page=msgspec.Raw(_encode(page)),
            )
        )
    return examples
