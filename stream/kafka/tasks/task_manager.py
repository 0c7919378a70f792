"""The tasks of one stage that its consumer group gives to this process."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
)

from prectr.state.errors import BrokerAway, StateError
from prectr.state.failpoints import at_point
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import Impression
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import LogEnds, Look
from prectr.stream.kafka.client.topics import Topics, layout
from prectr.stream.kafka.tasks.aggregate_task import QueriesTask
from prectr.stream.kafka.tasks.join_task import IDLE_AFTER, SessionsTask
from prectr.stream.kafka.tasks.membership import Membership, Share
from prectr.stream.kafka.tasks.task import Place, SnapshotSettings, Task, lost
from prectr.stream.kafka.tasks.task_status import TaskFacts
from prectr.stream.kafka.transactions.producer import CommittedOffsets
from prectr.stream.ordering.frames import END_OF_LOG

_POLL_RECORDS: Final = 8_192
_POLL_SECONDS: Final = 0.1
_GATHER_SECONDS: Final = 0.1
"""How long records are gathered, once the first are there."""
_PASS_RECORDS: Final = 16_384
_PASS_BYTES: Final = 16 << 20
_FETCH_BYTES: Final = 4 << 20
"""Of a partition at a time: the tasks go on side by side, so that the next stage need not hold what is ahead."""
_ASK_SECONDS: Final = 2.0
"""How long the tasks here may wait until it is known what others have committed."""
_ASK_EVERY: Final = 1.0
"""Seconds between two looks at how far the logs reach, and at what the whole group has committed."""
_NOTHING_TO_DO: Final = 0.02
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
    """What a stream process is told.

    session_timeout: seconds after which a dead process's tasks move on. idle_timeout: seconds without input after
    which nobody waits for what a partition holds, while others go on.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    config: PipelineConfig
    state_dir: Path
    stages: Sequence[str] = ("sessions", "queries")
    session_timeout: float = 10.0
    idle_timeout: float = 60.0
    snapshots: SnapshotSettings | None = None


class Stage:
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
        self._log = logging.LoggerAdapter(_log, {"stage": name})
        self.tasks: dict[int, Task] = {}
        self._settings = settings
        self._label = label
        self._log_ends = log_ends
        self._cluster = cluster
        self._topic = settings.topics.events if name == "sessions" else settings.topics.activity
        self._topic_id = layout(settings.connection, self._topic).identity
        self._group = f"{settings.group_prefix}{name}"
        self._share: Share | None = None
        self._settled = self._anew = 0
        self._asked = self._looked = 0.0
        self._ends: list[int] | None = None
        self._check_group()
        partitions = settings.config.partitions
        self._pool = ThreadPoolExecutor(max_workers=partitions, thread_name_prefix=name)
        self._consumer: KafkaConsumer = settings.connection.consumer(
            group_id=None, max_poll_records=_POLL_RECORDS, max_partition_fetch_bytes=_FETCH_BYTES
        )
        self._offsets = CommittedOffsets(settings.connection, self._group, self._topic)
        self._membership: Membership | None = self._joined()

    def work(self) -> bool:
        """Let the tasks take what has come, side by side; whether anything had.

        Raises:
            StateError: a task cannot go on with its state or its log.
            KafkaError: the broker refuses for good.
        """
        try:
            if self._membership is None:
                self._membership = self._joined()
            self._share = share = self._membership.share()
            if share is None:
                time.sleep(_NOTHING_TO_DO)
                return False
            if share.number != self._settled:
                self._settle(share)
            if not self.tasks:
                time.sleep(_NOTHING_TO_DO)
                return False
            polled = self._polled()
            look = self._look()
            self._all(
                [self._piece(task, polled.get(task.partition), share.group, look) for task in self.tasks.values()]
            )
            for task in self.tasks.values():
                task.lag = self._lag(task)
        except (KafkaError, BrokerAway) as error:
            self._begin_anew(error)
            return False
        return bool(polled)

    def end(self, ends: Sequence[int], *, flush: bool) -> None:
        """Let every `sessions` task whose partition has been read to its end say so. ends: offset by partition."""
        if self._share is None:
            return
        pieces = []
        try:
            for number, task in self.tasks.items():
                target = END_OF_LOG if flush else ends[number]
                if isinstance(task, SessionsTask) and task.ended < target and self._position(task) >= ends[number]:
                    pieces.append(partial(task.end, self._share.group, target, ends))
            self._all(pieces)
        except (KafkaError, BrokerAway) as error:
            self._begin_anew(error)

    def ended(self, ends: Sequence[int], *, flush: bool) -> bool:
        """Whether every task of the group, in whatever process, has read to `ends` and put out what came of it."""
        if not all(self._has_ended(task.said.ends, number, ends, flush) for number, task in self.tasks.items()):
            return False
        for number, task in self.tasks.items():
            # Who has said that the log has ended for good may have events after that to refuse.
            if isinstance(task, SessionsTask) and self._position(task) < ends[number]:
                return False
        if time.monotonic() - self._asked < _ASK_EVERY:
            return False
        self._asked = time.monotonic()
        try:
            for number in range(len(ends)):
                found = self._offsets.of(number, _ASK_SECONDS)
                if found is None or not self._has_ended(found[1].ends, number, ends, flush):
                    return False
        except (KafkaError, BrokerAway) as error:
            self._log.warning("%s: the group's offsets cannot be read (%s): asking again", self.name, _brief(error))
            return False
        return True

    def facts(self) -> list[TaskFacts]:
        """How each task that is here does; from any thread."""
        return [task.facts() for task in list(self.tasks.values())]

    def close(self) -> None:
        """Close all tasks and leave the group."""
        try:
            self._close_tasks()
        finally:
            if self._membership is not None:
                self._membership.close()
        self._pool.shutdown()
        self._offsets.close()
        self._consumer.close()

    def _has_ended(self, said: Sequence[int], number: int, ends: Sequence[int], flush: bool) -> bool:
        targets = [END_OF_LOG] * len(ends) if flush else ends
        if self.name == "sessions":
            return bool(said) and said[0] >= targets[number]
        return len(said) == len(targets) and all(at >= target for at, target in zip(said, targets, strict=True))

    def _polled(self) -> dict[TopicPartition, list[Any]]:
        """What has come, gathered for a moment: a transaction costs the same for one record as for thousands."""
        polled: dict[TopicPartition, list[Any]] = {}
        records = size = 0
        until = time.monotonic() + _POLL_SECONDS
        while True:
            left = until - time.monotonic()
            more: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=max(0, round(left * 1000)))
            if more and not polled:
                until = time.monotonic() + _GATHER_SECONDS
            for partition, found in more.items():
                polled.setdefault(partition, []).extend(found)
                records += len(found)
                size += sum(record.serialized_value_size for record in found)
            if records >= _PASS_RECORDS or size >= _PASS_BYTES or time.monotonic() >= until:
                return polled

    def _piece(self, task: Task, records: list[Any] | None, group: Any, look: Look | None) -> Callable[[], None]:
        """What a task has to do now."""
        if isinstance(task, QueriesTask):
            return partial(task.take, records, group) if records else partial(task.keep_up, group)
        assert isinstance(task, SessionsTask)
        if records:
            if records[0].offset > task.position:
                self._check_gap(task)
            return partial(task.take, records, group)
        return partial(task.keep_up, group, look, -1 if look is None else self._position(task))

    def _all(self, pieces: Sequence[Callable[[], None]]) -> None:
        """Do pieces of work side by side, since a transaction is mostly waiting; raise the first error of any."""
        if len(pieces) == 1:
            pieces[0]()
            return
        _raise_first([self._pool.submit(piece) for piece in pieces])

    def _look(self) -> Look | None:
        """How far the logs reach, where a task has had no input for a while; asked once a second."""
        silent = any(isinstance(task, SessionsTask) and task.silent_for >= IDLE_AFTER for task in self.tasks.values())
        if not silent or time.monotonic() - self._looked < _ASK_EVERY:
            return None
        partitions = [TopicPartition(self._topic, number) for number in range(self._settings.config.partitions)]
        found = self._log_ends.of(partitions)
        before, self._ends = self._ends, [found[partition] for partition in partitions]
        self._looked = time.monotonic()
        return None if before is None else Look(before, self._ends)

    def _position(self, task: Task) -> int:
        """Offset of the next record to be read, past what a transaction of others has left; -1 where unknown."""
        try:
            return int(self._consumer.position(task.partition))
        except IllegalStateError:
            return -1

    def _lag(self, task: Task) -> int | None:
        """Records of the task's partition that have not been read, as of the last answer; None before one."""
        end, at = self._consumer.highwater(task.partition), self._position(task)
        return None if end is None or at < 0 else max(0, end - at)

    def _check_gap(self, task: SessionsTask) -> None:
        first = self._log_ends.spans([task.partition])[task.partition].first
        if first > task.position:
            raise StateError(lost(f"{self._topic} partition {task.partition.partition}", task.position, first))

    def _settle(self, share: Share) -> None:
        """Close the tasks that have gone and open those that have come."""
        if share.anew != self._anew:
            self._close_tasks()
            self._anew = share.anew
        gone = [number for number in self.tasks if number not in share.tasks]
        if gone:
            at_point("rebalance")
        _raise_first([self._pool.submit(self.tasks.pop(number).close) for number in gone])
        for number in gone:
            _log.info(
                "%s task %d: gone to another process",
                self.name,
                number,
                extra={"stage": self.name, "partition": number},
            )
        come = sorted(share.tasks - self.tasks.keys())
        opening = [self._pool.submit(self._opened, number) for number in come]
        for number, future in zip(come, opening, strict=True):
            if future.exception() is None:
                self.tasks[number] = future.result()
        _raise_first(opening)
        self._consumer.assign([task.partition for task in self.tasks.values()])
        for number in come:
            task = self.tasks[number]
            self._consumer.seek(task.partition, task.position)
            task.log.info("%s task %d: open at offset %d", self.name, number, task.position)
        self._settled = share.number

    def _begin_anew(self, error: KafkaError | BrokerAway) -> None:
        """A transaction failed or its outcome is unknown: drop what is in memory and read the commits again.

        Joining anew tells whether a task is still ours before it is opened, which would fence its new owner.
        """
        if isinstance(error, _FATAL):
            raise error
        self._log.warning("%s: %s: opening the tasks again from what is committed", self.name, _brief(error))
        self._close_tasks()
        if self._membership is not None:
            self._membership.close()
        self._membership = self._share = None
        self._settled = self._anew = 0

    def _close_tasks(self) -> None:
        tasks = list(self.tasks.values())
        self.tasks.clear()
        _raise_first([self._pool.submit(task.close) for task in tasks])
        self._consumer.unsubscribe()

    def _joined(self) -> Membership:
        return Membership(
            self._settings.connection,
            self._group,
            self._topic,
            self._settings.config.partitions,
            session_timeout=self._settings.session_timeout,
            local_state=self._local_state,
        )

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
            settings.snapshots,
        )
        if self.name == "sessions":
            return SessionsTask(
                place, self._log_ends, self._offsets, label=self._label, idle_timeout=settings.idle_timeout
            )
        return QueriesTask(place, self._log_ends, self._offsets)

    def _local_state(self) -> Mapping[int, int]:
        """When the state of each task that lies here was last written (ms)."""
        found = {}
        for number in range(self._settings.config.partitions):
            folder = self._settings.state_dir / f"{self.name}-{number}"
            try:
                found[number] = max(round(file.stat().st_mtime * 1000) for file in folder.iterdir())
            except (OSError, ValueError):
                continue
        return found

    def _check_group(self) -> None:
        """Its transactional ids name group and partition, so two systems of one group would fence each other."""
        committed = self._settings.connection.ask(lambda admin: admin.list_group_offsets([self._group]))
        others = sorted({partition.topic for partition in committed.get(self._group, {})} - {self._topic})
        if others:
            raise StateError(
                f"group {self._group} has read {others[0]}, so it belongs to another system than the one of "
                f"{self._topic}: use another --group-prefix"
            )


def _raise_first(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, then raise the first error of any; one of ours says more than a transaction that failed beside."""
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, KafkaError | BrokerAway)):
        raise error


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
