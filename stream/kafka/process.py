"""One process of the live system: it runs the tasks that its consumer groups give it, until it is stopped."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from state.lock import FolderLock
from stream.config import PipelineConfig
from stream.events import Impression
from stream.kafka.client import Connection
from stream.kafka.task import Place, QueriesTask, SessionsTask, Task
from stream.kafka.topics import Topics, partition_count

_POLL_RECORDS: Final = 8_192
_POLL_MS: Final = 100
_IDLE_AFTER: Final = 5.0
"""Seconds without input after which a `sessions` task asks whether there is anything unread."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What a stream process is told. session_timeout: seconds after which a dead process's tasks move on."""

    connection: Connection
    topics: Topics
    group_prefix: str
    config: PipelineConfig
    state_dir: Path
    stages: Sequence[str] = ("sessions", "queries")
    session_timeout: float = 10.0


class _Stage(ConsumerRebalanceListener):  # type: ignore[misc]
    """The tasks of one stage that this process has now."""

    def __init__(self, settings: StreamSettings, stage: str, label: Callable[[str, Impression], None], cluster: str):
        self.name = stage
        self.tasks: dict[int, Task] = {}
        self._moves: SimpleQueue[tuple[bool, set[int]]] = SimpleQueue()
        self._settings = settings
        self._label = label
        self._cluster = cluster
        self._topic = settings.topics.events if stage == "sessions" else settings.topics.activity
        self.consumer: KafkaConsumer = settings.connection.consumer(
            group_id=f"{settings.group_prefix}{stage}",
            session_timeout_ms=round(settings.session_timeout * 1000),
            heartbeat_interval_ms=round(settings.session_timeout * 250),
            max_poll_interval_ms=600_000,
            max_poll_records=_POLL_RECORDS,
        )
        self.consumer.subscribe([self._topic], listener=self)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note the tasks that have come; called by the client's thread, in which nothing may block."""
        self._moves.put((True, {partition.partition for partition in assigned}))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Note the tasks that go. A transaction that is under way fails, since the group has moved on."""
        self._moves.put((False, {partition.partition for partition in revoked}))

    def work(self) -> bool:
        """Poll once and let the tasks take what came; whether anything did."""
        polled: dict[TopicPartition, list[Any]] = self.consumer.poll(timeout_ms=_POLL_MS)
        group = self.consumer.group_metadata()
        for number in self._settle():
            # Read from where the group stood, not from where the store stands: it comes again.
            polled.pop(TopicPartition(self._topic, number), None)
        for number, task in list(self.tasks.items()):
            records = polled.get(TopicPartition(self._topic, number))
            if records:
                self._guarded(number, partial(task.take, records, group))
            elif isinstance(task, SessionsTask):
                self._guarded(number, partial(task.keep_up, group, idle_after=_IDLE_AFTER))
        return bool(polled)

    def _settle(self) -> set[int]:
        """Close the tasks that have gone and open those that have come; returns the latter."""
        opened: set[int] = set()
        while not self._moves.empty():
            come, numbers = self._moves.get()
            for number in sorted(numbers):
                if come and number not in self.tasks:
                    self._open(number)
                    opened.add(number)
                elif not come and number in self.tasks:
                    self.tasks.pop(number).close()
        return opened

    def _guarded(self, number: int, work: Callable[[], None]) -> None:
        """Do a piece of work; where its transaction failed or its outcome is unknown, open the task anew.

        What the stage held in memory is dropped with the task, and the commit is read again.
        """
        try:
            work()
        except KafkaError as error:
            _log.warning("%s task %d: the transaction failed (%s): opening the task again", self.name, number, error)
            self.tasks.pop(number).close()
            # Joining anew tells whether the task is still ours before it is opened, which would fence its new owner.
            self.consumer.unsubscribe()
            for task in self.tasks.values():
                task.close()
            self.tasks.clear()
            self.consumer.subscribe([self._topic], listener=self)

    def _open(self, number: int) -> None:
        settings = self._settings
        place = Place(
            settings.connection,
            settings.topics,
            f"{settings.group_prefix}{self.name}",
            number,
            settings.config,
            settings.state_dir,
            self._cluster,
        )
        task: Task = (
            SessionsTask(place, self.consumer, self._label)
            if self.name == "sessions"
            else QueriesTask(place, self.consumer)
        )
        self.tasks[number] = task
        _log.info("%s task %d: open at offset %d", self.name, number, task.position)

    def close(self) -> None:
        """Close all tasks and leave the group."""
        for task in self.tasks.values():
            task.close()
        self.tasks.clear()
        self.consumer.close()


def run_stream(
    settings: StreamSettings,
    label: Callable[[str, Impression], None],
    *,
    until_end: bool = False,
    flush: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Mapping[str, int]], None] = lambda emitted: None,
) -> None:
    """Run the stages until `stop` says so or, with `until_end`, until all that is there now has gone through.

    flush: with `until_end`, the log has ended for good, so close every open page.

    Raises:
        PrectrError: the broker, a topic or a state folder does not allow it.
    """
    lock = FolderLock(settings.state_dir)
    ends = _ends(settings) if until_end else {}
    cluster = _cluster_id(settings.connection)
    stages = [_Stage(settings, name, label, cluster) for name in settings.stages]
    emitted: dict[str, int] = {}
    try:
        while not stop():
            for stage in stages:
                stage.work()
                emitted |= {f"{stage.name}-{number}": task.said.emitted for number, task in stage.tasks.items()}
                if until_end and stage.name == "sessions":
                    _end_sessions(stage, ends, flush=flush)
            progress(emitted)
            if until_end and all(_ended(stage, ends) for stage in stages):
                return
    finally:
        for stage in stages:
            stage.close()
        lock.release()


def _ends(settings: StreamSettings) -> dict[TopicPartition, int]:
    """Where the events end now, uncommitted ones included."""
    consumer = settings.connection.consumer(group_id=None)
    try:
        topic = settings.topics.events
        partitions = [TopicPartition(topic, number) for number in range(partition_count(settings.connection, topic))]
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
        return ends
    finally:
        consumer.close()


def _cluster_id(connection: Connection) -> str:
    with connection.admin() as admin:
        return str(admin.describe_cluster()["cluster_id"])


def _end_sessions(stage: _Stage, ends: Mapping[TopicPartition, int], *, flush: bool) -> None:
    group = stage.consumer.group_metadata()
    for task in stage.tasks.values():
        if isinstance(task, SessionsTask) and stage.consumer.position(task.partition) >= ends[task.partition]:
            task.end(group, flush=flush)


def _ended(stage: _Stage, ends: Mapping[TopicPartition, int]) -> bool:
    """Whether this process has nothing left to do in a stage."""
    return bool(stage.tasks) and all(
        task.ended if isinstance(task, QueriesTask) else stage.consumer.position(task.partition) >= ends[task.partition]
        for task in stage.tasks.values()
    )
