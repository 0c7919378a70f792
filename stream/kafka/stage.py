"""The tasks of one stage that its consumer group gives to this process."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
)

from state.errors import StateError
from stream.config import PipelineConfig
from stream.events import Impression
from stream.frames import END_OF_LOG
from stream.kafka.client import Connection
from stream.kafka.ends import LogEnds
from stream.kafka.queries_task import QueriesTask
from stream.kafka.sessions_task import SessionsTask
from stream.kafka.task import Place, Task, lost
from stream.kafka.topics import Topics, layout
from stream.kafka.transaction import read_committed

_POLL_RECORDS: Final = 8_192
_POLL_MS: Final = 200
_IDLE_AFTER: Final = 5.0
"""Seconds without input after which a `sessions` task asks whether there is anything unread."""
_ASK_EVERY: Final = 1.0
"""Seconds between two looks at what the whole group has committed."""
_FATAL: Final = (
    AuthorizationError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
)
"""What opening the task again does not mend."""
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


class Stage(ConsumerRebalanceListener):  # type: ignore[misc]
    """The tasks of one stage that this process has now."""

    def __init__(
        self,
        settings: StreamSettings,
        name: str,
        label: Callable[[str, Impression], None],
        log_ends: LogEnds,
        cluster: str,
    ) -> None:
        """Join the group; raises StateError where the group belongs to another system."""
        self.name = name
        self.tasks: dict[int, Task] = {}
        self._settings = settings
        self._label = label
        self._log_ends = log_ends
        self._cluster = cluster
        self._topic = settings.topics.events if name == "sessions" else settings.topics.activity
        self._topic_id = layout(settings.connection, self._topic).identity
        self._group = f"{settings.group_prefix}{name}"
        self._moves: SimpleQueue[tuple[bool, set[int]]] = SimpleQueue()
        self._joining = True
        self._asked = 0.0
        self._check_group()
        self._pool = ThreadPoolExecutor(max_workers=settings.config.partitions, thread_name_prefix=name)
        self._consumer: KafkaConsumer = settings.connection.consumer(
            group_id=self._group,
            session_timeout_ms=round(settings.session_timeout * 1000),
            heartbeat_interval_ms=round(settings.session_timeout * 250),
            max_poll_interval_ms=600_000,
            max_poll_records=_POLL_RECORDS,
        )
        self._consumer.subscribe([self._topic], listener=self)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note the tasks that have come; called by the client's thread, in which nothing may block."""
        self._joining = False
        self._moves.put((True, {partition.partition for partition in assigned}))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Note the tasks that go. A transaction that is under way fails, since the group has moved on."""
        self._joining = True
        self._moves.put((False, {partition.partition for partition in revoked}))

    def work(self) -> bool:
        """Poll once and let the tasks take what came, side by side; whether anything did.

        Raises:
            StateError: a task cannot go on with its state or its log.
            KafkaError: the broker refuses for good.
        """
        try:
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
            group = self._consumer.group_metadata()
            for number in self._settle():
                # Read from where the group stood, not from where the store stands: it comes again.
                polled.pop(TopicPartition(self._topic, number), None)
            self._all(
                {
                    number: self._piece(task, polled.get(TopicPartition(self._topic, number)), group)
                    for number, task in self.tasks.items()
                }
            )
        except KafkaError as error:
            if isinstance(error, _FATAL):
                raise
            self._rejoin(error)
            return False
        return bool(polled)

    def end(self, ends: Sequence[int], *, flush: bool) -> None:
        """Let every `sessions` task whose partition has been read to its end say so. ends: offset by partition."""
        try:
            group = self._consumer.group_metadata()
            pieces = {}
            for number, task in self.tasks.items():
                target = END_OF_LOG if flush else ends[number]
                if isinstance(task, SessionsTask) and task.ended < target and self._position(task) >= ends[number]:
                    pieces[number] = partial(task.end, group, target)
            self._all(pieces)
        except KafkaError as error:
            if isinstance(error, _FATAL):
                raise
            self._rejoin(error)

    def ended(self, ends: Sequence[int], *, flush: bool) -> bool:
        """Whether every task of the group, in whatever process, has read to `ends` and put out what came of it."""
        if not all(self._has_ended(task.said.ends, number, ends, flush) for number, task in self.tasks.items()):
            return False
        if self._joining or time.monotonic() - self._asked < _ASK_EVERY:
            return False
        self._asked = time.monotonic()
        try:
            for number in range(len(ends)):
                partition = TopicPartition(self._topic, number)
                found = read_committed(self._consumer.committed(partition, metadata=True), partition)
                if found is None or not self._has_ended(found[1].ends, number, ends, flush):
                    return False
        except KafkaError as error:
            _log.warning("%s: the group's offsets cannot be read (%s): asking again", self.name, _brief(error))
            return False
        return True

    def emitted(self) -> dict[str, int]:
        """Records put out since the beginning by each task that is here, by its name."""
        return {f"{self.name}-{number}": task.said.emitted for number, task in list(self.tasks.items())}

    def close(self) -> None:
        """Close all tasks and leave the group."""
        self._close_tasks()
        self._pool.shutdown()
        self._consumer.close(timeout_ms=5_000)

    def _has_ended(self, said: Sequence[int], number: int, ends: Sequence[int], flush: bool) -> bool:
        targets = [END_OF_LOG] * len(ends) if flush else ends
        if self.name == "sessions":
            return bool(said) and said[0] >= targets[number]
        return len(said) == len(targets) and all(at >= target for at, target in zip(said, targets, strict=True))

    def _piece(self, task: Task, records: list[Any] | None, group: Any) -> Callable[[], None]:
        """What a task has to do now."""
        if isinstance(task, QueriesTask):
            return partial(task.take, records, group) if records else partial(task.keep_up, group)
        assert isinstance(task, SessionsTask)
        if records:
            if records[0].offset > task.position:
                self._check_gap(task)
            return partial(task.take, records, group)
        return partial(task.keep_up, group, idle_after=_IDLE_AFTER, unread=partial(self._unread, task))

    def _all(self, pieces: Mapping[int, Callable[[], None]]) -> None:
        """Do pieces of work side by side, since a transaction is mostly waiting; raise the first error of any."""
        if len(pieces) == 1:
            next(iter(pieces.values()))()
            return
        failed: BaseException | None = None
        for future in [self._pool.submit(piece) for piece in pieces.values()]:
            error = future.exception()
            # An error of ours ends the process, and so says more than a transaction that failed beside it.
            if failed is None or not isinstance(error, KafkaError | None):
                failed = error or failed
        if failed is not None:
            raise failed

    def _unread(self, task: SessionsTask) -> bool:
        return self._log_ends.of([task.partition])[task.partition] > self._position(task)

    def _position(self, task: Task) -> int:
        """Offset of the next record to be read, past what a transaction of others has left; -1 where it has gone."""
        try:
            return int(self._consumer.position(task.partition))
        except IllegalStateError:
            return -1

    def _check_gap(self, task: SessionsTask) -> None:
        first = self._log_ends.first(task.partition)
        if first > task.position:
            raise StateError(lost(f"{self._topic} partition {task.partition.partition}", task.position, first))

    def _settle(self) -> set[int]:
        """Close the tasks that have gone and open those that have come; returns the latter."""
        opened: set[int] = set()
        while not self._moves.empty():
            come, numbers = self._moves.get()
            for number in sorted(numbers):
                if come and number not in self.tasks:
                    self.tasks[number] = task = self._opened(number)
                    opened.add(number)
                    _log.info("%s task %d: open at offset %d", self.name, number, task.position)
                elif not come and number in self.tasks:
                    self.tasks.pop(number).close()
                    _log.info("%s task %d: gone to another process", self.name, number)
        return opened

    def _rejoin(self, error: KafkaError) -> None:
        """A transaction failed or its outcome is unknown: drop what is in memory and read the commits again.

        Joining anew tells whether a task is still ours before it is opened, which would fence its new owner.
        """
        _log.warning("%s: %s: opening the tasks again from what is committed", self.name, _brief(error))
        self._close_tasks()
        with suppress(KafkaError):
            # Where this fails, the group learns by the session timeout that we have gone.
            self._consumer.unsubscribe()
        while not self._moves.empty():
            self._moves.get()
        self._consumer.subscribe([self._topic], listener=self)

    def _close_tasks(self) -> None:
        for task in self.tasks.values():
            task.close()
        self.tasks.clear()

    def _opened(self, number: int) -> Task:
        settings = self._settings
        place = Place(
            settings.connection,
            settings.topics,
            self._group,
            number,
            settings.config,
            settings.state_dir,
            self._cluster,
            self._topic_id,
        )
        if self.name == "sessions":
            return SessionsTask(place, self._consumer, self._label)
        return QueriesTask(place, self._consumer)

    def _check_group(self) -> None:
        """Its transactional ids name group and partition, so two systems of one group would fence each other."""
        committed = self._settings.connection.ask(lambda admin: admin.list_group_offsets([self._group]))
        others = sorted({partition.topic for partition in committed.get(self._group, {})} - {self._topic})
        if others:
            raise StateError(
                f"group {self._group} has read {others[0]}, so it belongs to another system than the one of "
                f"{self._topic}: use another --group-prefix"
            )


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
