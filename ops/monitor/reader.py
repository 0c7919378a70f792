"""Reads `model-quality` with Faust: every record goes into a table in RocksDB and into the `QualityTable`.

A record replaces its predecessor and is never added, and Faust commits its offset once the table's changelog has it. So
a monitor that is killed rereads some records without effect, and misses none.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import faust
import msgspec
from faust.types import TP
from kafka import TopicPartition

from prectr.model.quality.record import InvalidQualityRecord, decode_record
from prectr.ops.monitor.admission import Rejections, check_times
from prectr.ops.monitor.changelog_loss import rebuild_if_lost, set_aside
from prectr.ops.monitor.client_log_filter import ClientLogFilter
from prectr.ops.monitor.consumer_thread import abandoned_after, use_abandonable_threads
from prectr.ops.monitor.credentials import credentials
from prectr.ops.monitor.current_quality import STATUS_READING, MonitorSnapshot
from prectr.ops.monitor.data_dir_owner import DataDirOwner, claim
from prectr.ops.monitor.quality_table import ModelQuality, QualityTable, StoredRecord
from prectr.ops.monitor.restored_table import restore_table
from prectr.ops.monitor.stall import LagProbe, StallDetector
from prectr.state.errors import PrectrError
from prectr.state.system_limits import limit_advice
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, describe_system, describe_topic
from prectr.stream.kafka.io.quality_producer import PARTITION

_UPDATE_INTERVAL: Final = 1.0
"""Minimum seconds between two updates: summing up a day takes some 10 ms."""
_SLEEP: Final = 0.1
_STOP_TIMEOUT: Final = 15.0
_ABANDON_AFTER: Final = 10.0
"""Seconds that Faust's consumer thread has to end when Faust stops."""
_CANCEL_TIMEOUT: Final = 5.0
"""Seconds that Faust's tasks have to end once they are cancelled. A client without a broker may ignore that."""
_RESTART_DELAY: Final = 1.0
_MAX_RESTART_DELAY: Final = 30.0
_RESET_AFTER: Final = 60.0
_RECORDS: Final = "quality-windows"
_TABLES_AHEAD: Final = "ConsistencyError"
"""Faust's error for tables that are ahead of their changelog."""
_METADATA_MAX_AGE_MS: Final = 5_000
"""Milliseconds after which the consumer refreshes its metadata."""
_ROCKSDB: Final = {"block_cache_size": 8 << 20, "write_buffer_size": 4 << 20, "max_open_files": 64}
"""Options of each partition of each table; the tables are some MB in size."""
_log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode


class MonitorSettings(NamedTuple):
    """Which system a monitor reads. data_dir: folder of its tables. session_timeout: seconds until another monitor
    takes over from one that has died.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    data_dir: Path
    session_timeout: float = 10.0

    @property
    def tables(self) -> Path:
        """Faust's folder of tables."""
        return self.data_dir / "v1" / "tables"

    @property
    def group(self) -> str:
        """The consumer group; the changelogs are named after it."""
        return f"{self.topics.prefix}{self.group_prefix}monitor"


def run_monitor(
    settings: MonitorSettings, *, stop: Callable[[], bool], on_update: Callable[[MonitorSnapshot], None]
) -> None:
    """Read until `stop` returns true; call `on_update` once a second.

    Outages of the broker are waited for. If Faust itself fails, the error is logged and Faust is restarted.

    Raises:
        PrectrError: there is no broker or no topic at the start, or Faust does not support a client setting.
    """
    credentials(settings.connection)
    use_abandonable_threads()
    topic = settings.topics.quality
    identity = describe_topic(settings.connection, topic).topic_id
    topic_info = describe_system(settings.connection, settings.topics).topics[topic]
    cluster = str(settings.connection.call_admin(lambda admin: admin.describe_cluster())["cluster_id"])
    claim(settings.data_dir, DataDirOwner(cluster, topic, identity, settings.group))
    counts = _Counts()
    log_filter = ClientLogFilter(settings.connection.bootstrap)
    lag_probe = LagProbe(settings.connection, settings.group, TopicPartition(topic, PARTITION), log_filter.is_failing)
    stall_detector = StallDetector()
    delay = _RESTART_DELAY
    last: list[MonitorSnapshot] = []

    def update(snapshot: MonitorSnapshot) -> None:
        last[:] = [snapshot]
        on_update(snapshot)

    def is_stalled(is_reading: bool) -> bool:
        return stall_detector.is_stalled(counts.received, lag_probe.lag if is_reading else None)

    with log_filter, lag_probe, closing(settings.connection.watched_consumer()):
        while not stop():
            _rebuild_if_lost(settings, stop)
            started = time.monotonic()
            reader = _Reader(settings, topic_info.partitions, topic_info.min_replicas, counts, log_filter)
            error = _run(reader.run(stop, update, is_stalled))
            del reader
            # RocksDB releases its files once nothing references the tables.
            gc.collect()
            if error is None:
                return
            log_filter.stopping = False
            if error.startswith(_TABLES_AHEAD):
                # The changelog was deleted, and another monitor has written to a new one since.
                _log.warning("the tables, now in %s, are restored from their changelog", set_aside(settings.tables))
            delay = _RESTART_DELAY if time.monotonic() - started > _RESET_AFTER else min(2 * delay, _MAX_RESTART_DELAY)
            limit = limit_advice(error)
            _log.warning("reading failed (%s)%s; restarting in %g s", error, f": {limit}" if limit else "", delay)
            if last:
                on_update(msgspec.structs.replace(last[0], status=f"restarting: {error}"))
            deadline = time.monotonic() + delay
            while not stop() and time.monotonic() < deadline:
                time.sleep(_SLEEP)


def _rebuild_if_lost(settings: MonitorSettings, stop: Callable[[], bool]) -> None:
    try:
        rebuild_if_lost(
            settings.connection,
            settings.group,
            TopicPartition(settings.topics.quality, PARTITION),
            settings.tables / f"{_RECORDS}-{PARTITION}.db",
            session_timeout=settings.session_timeout,
            stop=stop,
        )
    except PrectrError as error:
        # Faust waits for a broker that is away.
        _log.debug("whether the changelog is there is not known: %s", error)


class _Counts:
    """Counts since the process started, over restarts of Faust. received: records read."""

    def __init__(self) -> None:
        self.received = 0
        self.rejections = Rejections()


class _Reader:
    """A Faust application, from start to stop."""

    def __init__(
        self, settings: MonitorSettings, partitions: int, replicas: int, counts: _Counts, log_filter: ClientLogFilter
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self._replicas = replicas
        self._counts = counts
        self._log_filter = log_filter
        self._quality_table = QualityTable()
        self._generation = -1
        self._changed = True
        self._quality: dict[str, ModelQuality] = {}
        self._updated_at = 0.0

    async def run(
        self,
        stop: Callable[[], bool],
        on_update: Callable[[MonitorSnapshot], None],
        is_stalled: Callable[[bool], bool],
    ) -> str | None:
        """Read until `stop` returns true; returns the error that ended it, None if it was stopped.

        is_stalled: told whether the reader is reading, returns whether nothing arrives although records are there.
        """
        app = self._make_app()
        starting = asyncio.create_task(app.start())
        try:
            while not stop():
                failure = self._failure(app, starting)
                if failure is not None:
                    return failure
                if is_stalled(self._status(app) == STATUS_READING):
                    return "the Kafka client reads no more, although there are records"
                self._update(app, on_update)
                await asyncio.sleep(_SLEEP)
            return None
        finally:
            self._log_filter.stopping = True
            await _stop(app, starting)

    def _make_app(self) -> Any:
        settings = self._settings
        self._app = app = faust.App(
            settings.group,
            broker=[f"kafka://{address}" for address in settings.connection.bootstrap.split(",")],
            broker_credentials=credentials(settings.connection),
            broker_session_timeout=settings.session_timeout,
            broker_heartbeat_interval=settings.session_timeout / 4,
            consumer_auto_offset_reset="earliest",
            # The changelogs are created at the first start: without them in its metadata the consumer cannot start, and
            # by default it would refresh them after 5 minutes only.
            consumer_metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            store="rocksdb://",
            datadir=str(settings.data_dir),
            topic_partitions=self._partitions,
            topic_replication_factor=self._replicas,
            topic_disable_leader=True,
            autodiscover=False,
            web_enabled=False,
        )
        self._records = self._make_table(app, _RECORDS)
        self._totals = self._make_table(app, "quality-totals")
        topic = app.topic(
            settings.topics.quality, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        app.agent(topic, name="process")(self._process)
        return app

    def _make_table(self, app: Any, name: str) -> Any:
        # Faust removes the driver from the options, so each table gets its own dict.
        options = {"driver": "rocksdict", **_ROCKSDB}
        return app.Table(name, key_type=bytes, value_type=bytes, partitions=self._partitions, options=options)

    async def _process(self, stream: Any) -> None:
        async for event in stream.events():
            self._reload_after_rebalance()
            message = event.message
            self._counts.received += 1
            self._changed = True
            try:
                stored = self._admit(message)
            except InvalidQualityRecord as error:
                where = f"{message.topic} partition {message.partition} offset {message.offset}"
                self._counts.rejections.add(where, error)
                continue
            if self._quality_table.put(stored):
                self._records[stored.record.key] = _encode(stored)
            await self._clean_up()

    def _admit(self, message: Any) -> StoredRecord:
        """Decode a record of the topic and check that it has a place in the table; raises InvalidQualityRecord."""
        record = decode_record(message.key, message.value)
        received_at = round(message.timestamp * 1000)
        check_times(record, received_at, round(time.time() * 1000))
        stored = StoredRecord(received_at, record)
        self._quality_table.check_room(stored)
        return stored

    async def _clean_up(self) -> None:
        """Replace records that are too old for any window by totals; delete them once the broker has the total."""
        for total, record_keys in self._quality_table.retire():
            self._totals[total.key] = _encode(total)
            await self._app.producer.flush()
            for key in record_keys:
                self._records.pop(key, None)
        for eviction in self._quality_table.evict():
            for key in eviction.record_keys:
                self._records.pop(key, None)
            self._totals.pop(eviction.total_key, None)

    def _reload_after_rebalance(self) -> None:
        """Rebuild the quality table from the tables after the partitions were assigned to this process."""
        generation = self._app.consumer_generation_id
        if generation == self._generation:
            return
        self._quality_table = restore_table(
            self._totals.items(), self._records.items(), self._counts.rejections, round(time.time() * 1000)
        )
        self._generation = generation
        self._changed = True

    def _failure(self, app: Any, starting: "asyncio.Task[Any]") -> str | None:
        """The error that ended Faust; None while it runs."""
        error = starting.exception() if starting.done() and not starting.cancelled() else None
        if error is None and app.crashed:
            error = app.crash_reason or app.consumer.crash_reason
        if error is None and not app.crashed:
            return None
        return " ".join(f"{type(error).__name__}: {error}".split()) if error is not None else "Faust has stopped"

    def _update(self, app: Any, on_update: Callable[[MonitorSnapshot], None]) -> None:
        status = self._status(app)
        if time.monotonic() - self._updated_at < _UPDATE_INTERVAL:
            return
        self._updated_at = time.monotonic()
        if self._changed:
            self._quality = self._quality_table.quality()
            self._changed = False
        on_update(
            MonitorSnapshot(
                status=status,
                received=self._counts.received,
                rejected=dict(self._counts.rejections.counts),
                retained_windows=self._quality_table.retained_windows,
                sources=self._quality_table.sources(),
                quality=self._quality,
            )
        )

    def _status(self, app: Any) -> str:
        if self._log_filter.is_failing():
            return "waiting for Kafka"
        recovered = app.tables.recovery.completed.is_set() and not app.rebalancing
        if not recovered:
            return "restoring tables"
        if TP(self._settings.topics.quality, PARTITION) not in app.assignor.assigned_actives():
            # Another monitor has taken over: drop what was read before.
            if self._quality_table.retained_windows:
                self._quality_table = QualityTable()
                self._changed = True
            self._generation = -1
            return "standby: another monitor is reading"
        self._reload_after_rebalance()
        return STATUS_READING


def _run(reading: Coroutine[Any, Any, str | None]) -> str | None:
    """Run a coroutine in an event loop of its own; as `asyncio.run`, but waits for cancelled tasks for a while only."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(reading)
    finally:
        with suppress(Exception):
            loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        # Only a task that ignores its cancellation is still pending; asyncio would report it when it is collected.
        loop.set_exception_handler(lambda *_: None)
        asyncio.set_event_loop(None)
        loop.close()


async def _cancel(tasks: Collection["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT)


async def _stop(app: Any, starting: "asyncio.Task[Any]") -> None:
    """Stop Faust, which may wait without end for an unavailable broker, even when it is cancelled."""
    await _cancel([starting])
    stopping = asyncio.create_task(app.stop())
    with abandoned_after(_ABANDON_AFTER):
        done, _ = await asyncio.wait([stopping], timeout=_STOP_TIMEOUT)
    if not done:
        await _cancel([stopping])
    elif not stopping.cancelled():
        # Retrieved, so that asyncio does not report it.
        stopping.exception()
