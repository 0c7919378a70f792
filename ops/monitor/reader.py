"""Reads `model-quality` with Faust: every record into a table in RocksDB, and onto the board.

A record is put, never added, and Faust commits its offset once the table's changelog has it: so a monitor that is
killed takes some records again, to no effect, and misses none.
"""

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import faust
import msgspec
from faust.types import TP

from prectr.model.quality.record import RefusedRecord, decode_record
from prectr.ops.monitor.client_log_filter import Trouble
from prectr.ops.monitor.credentials import credentials
from prectr.ops.monitor.current_quality import READING, Reading
from prectr.ops.monitor.data_dir_owner import Belonging, claim
from prectr.ops.monitor.quality_table import Board, Entry, ModelQuality, Past
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, describe_system, layout
from prectr.stream.kafka.io.quality_producer import PARTITION

_TELL_EVERY: Final = 1.0
"""Seconds between two readings, at the least: to add up a day takes some hundredths of a second."""
_NAP: Final = 0.1
_STOP_SECONDS: Final = 20.0
_AGAIN_FIRST: Final = 1.0
_AGAIN_LONGEST: Final = 30.0
_STEADY: Final = 60.0
_REFUSALS_SAID: Final = 20
_ASK_AGAIN_MS: Final = 5_000
"""Between two questions of the consumer which topics and partitions there are."""
_ROCKSDB: Final = {"block_cache_size": 8 << 20, "write_buffer_size": 4 << 20, "max_open_files": 64}
"""Of each partition of each table; what is held is some megabytes."""
_log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_entry: Final = msgspec.msgpack.Decoder(Entry).decode
_decode_past: Final = msgspec.msgpack.Decoder(Past).decode


class MonitorSettings(NamedTuple):
    """What a monitor is told. data_dir: folder of its tables. session_timeout: seconds after which another takes over
    from a dead one.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    data_dir: Path
    session_timeout: float = 10.0

    @property
    def group(self) -> str:
        """The consumer group; the changelogs are named after it."""
        return f"{self.topics.prefix}{self.group_prefix}monitor"


def run_monitor(settings: MonitorSettings, *, stop: Callable[[], bool], tell: Callable[[Reading], None]) -> None:
    """Read until `stop` says so; `tell` is told what is known now, once a second.

    The broker may go away and come back. What ends Faust itself is told, and it is started anew.

    Raises:
        PrectrError: no broker or no topic at the start, or a setting that Faust does not have.
    """
    credentials(settings.connection)
    topic = settings.topics.quality
    identity = layout(settings.connection, topic).identity
    facts = describe_system(settings.connection, settings.topics).topics[topic]
    cluster = str(settings.connection.ask(lambda admin: admin.describe_cluster())["cluster_id"])
    claim(settings.data_dir, Belonging(cluster, topic, identity, settings.group))
    counted = _Counted()
    again = _AGAIN_FIRST
    last: list[Reading] = []

    def told(reading: Reading) -> None:
        last[:] = [reading]
        tell(reading)

    with Trouble(settings.connection.bootstrap) as trouble:
        while not stop():
            begun = time.monotonic()
            reader = _Reader(settings, facts.partitions, facts.replicas, counted, trouble)
            error = asyncio.run(reader.run(stop, told))
            del reader
            # RocksDB lets go of its files when nobody knows the tables any more.
            gc.collect()
            trouble.ending = False
            if error is None:
                return
            again = _AGAIN_FIRST if time.monotonic() - begun > _STEADY else min(2 * again, _AGAIN_LONGEST)
            _log.warning("reading has failed (%s); starting it again in %g s", error, again)
            if last:
                tell(msgspec.structs.replace(last[0], standing=f"starting again: {error}"))
            until = time.monotonic() + again
            while not stop() and time.monotonic() < until:
                time.sleep(_NAP)


class _Counted:
    """Counts of the process, whatever becomes of Faust."""

    def __init__(self) -> None:
        self.received = 0
        self.refused: Counter[str] = Counter()

    def refuse(self, where: str, error: RefusedRecord) -> None:
        self.refused[error.reason] += 1
        number = self.refused.total()
        if number <= _REFUSALS_SAID:
            last = "; more of them are only counted" if number == _REFUSALS_SAID else ""
            _log.warning("%s: refused: %s%s", where, error, last)


class _Reader:
    """One life of a Faust application."""

    def __init__(
        self, settings: MonitorSettings, partitions: int, replicas: int, counted: _Counted, trouble: Trouble
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self._replicas = replicas
        self._counted = counted
        self._trouble = trouble
        self._board = Board()
        self._generation = -1
        self._changed = True
        self._quality: dict[str, ModelQuality] = {}
        self._told = 0.0

    async def run(self, stop: Callable[[], bool], tell: Callable[[Reading], None]) -> str | None:
        """Read until `stop` says so; returns why it could not go on, None where it was asked to stop."""
        app = self._made()
        starting = asyncio.create_task(app.start())
        try:
            while not stop():
                failed = self._failed(app, starting)
                if failed is not None:
                    return failed
                self._tell(app, tell)
                await asyncio.sleep(_NAP)
            return None
        finally:
            self._trouble.ending = True
            await _ended(app, starting)

    def _made(self) -> Any:
        settings = self._settings
        self._app = app = faust.App(
            settings.group,
            broker=[f"kafka://{address}" for address in settings.connection.bootstrap.split(",")],
            broker_credentials=credentials(settings.connection),
            broker_session_timeout=settings.session_timeout,
            broker_heartbeat_interval=settings.session_timeout / 4,
            consumer_auto_offset_reset="earliest",
            # The changelogs are made at the first start: a consumer that has not heard of them yet can do nothing, and
            # would ask again after 5 minutes.
            consumer_metadata_max_age_ms=_ASK_AGAIN_MS,
            store="rocksdb://",
            datadir=str(settings.data_dir),
            topic_partitions=self._partitions,
            topic_replication_factor=self._replicas,
            topic_disable_leader=True,
            autodiscover=False,
            web_enabled=False,
        )
        self._entries = self._table(app, "sketches")
        self._pasts = self._table(app, "past-sketches")
        topic = app.topic(
            settings.topics.quality, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        app.agent(topic, name="take")(self._take)
        return app

    def _table(self, app: Any, name: str) -> Any:
        # Faust takes the driver out of the options that it is given.
        options = {"driver": "rocksdict", **_ROCKSDB}
        return app.Table(name, key_type=bytes, value_type=bytes, partitions=self._partitions, options=options)

    async def _take(self, stream: Any) -> None:
        async for event in stream.events():
            self._load_if_new()
            message = event.message
            self._counted.received += 1
            self._changed = True
            try:
                record = decode_record(message.key, message.value)
            except RefusedRecord as error:
                self._counted.refuse(f"{message.topic} partition {message.partition} offset {message.offset}", error)
                continue
            entry = Entry(round(message.timestamp * 1000), record)
            if self._board.put(entry):
                self._entries[record.key] = _encode(entry)
            await self._tidy()

    async def _tidy(self) -> None:
        """Keep what is too old for any window as a sum; what is in it goes only once the broker has the sum."""
        for past, old in self._board.retire():
            self._pasts[past.key] = _encode(past)
            await self._app.producer.flush()
            for key in old:
                self._entries.pop(key, None)
        for forgotten in self._board.forget():
            for key in forgotten.entries:
                self._entries.pop(key, None)
            self._pasts.pop(forgotten.past, None)

    def _load_if_new(self) -> None:
        """Take up the board from the tables, where the partitions have just been given to this process."""
        generation = self._app.consumer_generation_id
        if generation == self._generation:
            return
        board = Board(_decode_past(value) for value in self._pasts.values())
        for value in self._entries.values():
            board.put(_decode_entry(value))
        self._board = board
        self._generation = generation
        self._changed = True

    def _failed(self, app: Any, starting: "asyncio.Task[Any]") -> str | None:
        """Why Faust cannot go on; None where it can."""
        error = starting.exception() if starting.done() and not starting.cancelled() else None
        if error is None and app.crashed:
            error = app.crash_reason or app.consumer.crash_reason
        if error is None and not app.crashed:
            return None
        return " ".join(f"{type(error).__name__}: {error}".split()) if error is not None else "Faust has stopped"

    def _tell(self, app: Any, tell: Callable[[Reading], None]) -> None:
        standing = self._standing(app)
        if time.monotonic() - self._told < _TELL_EVERY:
            return
        self._told = time.monotonic()
        if self._changed:
            self._quality = self._board.quality()
            self._changed = False
        tell(
            Reading(
                standing=standing,
                received=self._counted.received,
                refused=dict(self._counted.refused),
                stretches=self._board.stretches,
                sources=self._board.sources(),
                quality=self._quality,
            )
        )

    def _standing(self, app: Any) -> str:
        if self._trouble.now():
            return "waiting for Kafka"
        recovered = app.tables.recovery.completed.is_set() and not app.rebalancing
        if not recovered:
            return "taking up the tables"
        if TP(self._settings.topics.quality, PARTITION) not in app.assignor.assigned_actives():
            # What was read before another took over is that one's to show.
            if self._board.stretches:
                self._board = Board()
                self._changed = True
            self._generation = -1
            return "standing by: another monitor reads"
        self._load_if_new()
        return READING


async def _ended(app: Any, starting: "asyncio.Task[Any]") -> None:
    """Stop Faust, which may wait long for a broker that is away."""
    starting.cancel()
    with suppress(BaseException):
        await starting
    with suppress(Exception):
        await asyncio.wait_for(app.stop(), _STOP_SECONDS)
