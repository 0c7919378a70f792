"""Runs the tasks over one topic that the consumer group has assigned to this process."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
)

from prectr.state.errors import BrokerUnavailableError, Remedy, StateError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.client_internals import next_offset, seek
from prectr.stream.kafka.client.end_offsets import EndOffsets, EndOffsetsSample
from prectr.stream.kafka.client.record_fetcher import STEP_RECORDS, RecordFetcher
from prectr.stream.kafka.client.topic_changes import TopicWatch
from prectr.stream.kafka.tasks.membership import Assignment, Membership
from prectr.stream.kafka.tasks.task import Task
from prectr.stream.kafka.tasks.task_context import EndOfInput, PunctuationContext
from prectr.stream.kafka.transactions.committed_offsets import CommittedOffsets

_POLL_TIMEOUT: Final = 0.1
_LINGER: Final = 0.1
"""Seconds for which records are gathered after the first."""
_MAX_ROUND_RECORDS: Final = 16_384
_MAX_ROUND_BYTES: Final = 16 << 20
_MAX_PARTITION_FETCH_BYTES: Final = 4 << 20
"""Limits how far a partition runs ahead of the others, which the next stage would have to buffer."""
_COMMITTED_TIMEOUT: Final = 2.0
"""Seconds to wait for the offset that another process's task has committed."""
_SAMPLE_INTERVAL: Final = 1.0
"""Seconds between two samples of the end offsets, and of the offsets committed by the group."""
_IDLE_SLEEP: Final = 0.02
_FATAL_ERRORS: Final = (
    AuthorizationError,
    MessageSizeTooLargeError,
    OffsetMetadataTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
)
"""Errors that opening the tasks again does not fix."""
_LOG_INTERVAL: Final = 60.0
"""Seconds between two messages that the tasks are opened again: an outage of the broker takes many attempts."""
_log = logging.getLogger(__name__)


class TaskSource(NamedTuple):
    """What the tasks of a manager read. stage: names them in logs; group: the consumer group that shares them."""

    stage: str
    topic: str
    partitions: int
    group: str


TaskT = TypeVar("TaskT", bound=Task)


class TaskManager(ABC, Generic[TaskT]):
    """Opens, runs and closes the tasks over one topic as the consumer group assigns them."""

    task_class: type[TaskT]
    foreign_commit_remedies: Sequence[Remedy] = (Remedy.OTHER_GROUP_PREFIX,)
    """What to do where another program has committed the group's offsets."""

    def __init__(
        self, connection: Connection, source: TaskSource, end_offsets: EndOffsets, session_timeout: float
    ) -> None:
        """Join the group.

        Args:
            session_timeout: seconds after which the group reassigns a dead process's tasks.

        Raises:
            StateError: the group belongs to another system.
        """
        self.stage = source.stage
        self._log = logging.LoggerAdapter(_log, {"stage": source.stage})
        self.tasks: dict[int, TaskT] = {}
        """By partition."""
        self._connection = connection
        self._end_offsets = end_offsets
        self._session_timeout = session_timeout
        self._topic, self._partitions, self._group = source.topic, source.partitions, source.group
        self._watch = TopicWatch(connection, self._topic)
        self._topic_id = self._watch.description.topic_id
        self._assignment: Assignment | None = None
        self._reconciled_version = self._handled_lost_count = 0
        self._committed_polled_at = self._sampled_at = 0.0
        self._sampled_ends: list[int] | None = None
        self._logged_at = float("-inf")
        self._check_group()
        self._pool = ThreadPoolExecutor(max_workers=self._partitions, thread_name_prefix=source.stage)
        self._consumer: KafkaConsumer = connection.watched_consumer(
            max_poll_records=STEP_RECORDS,
            max_partition_fetch_bytes=_MAX_PARTITION_FETCH_BYTES,
            auto_offset_reset="none",
        )
        self._fetcher = RecordFetcher(self._consumer, self._topic, self._watch, self._positions)
        self._committed_offsets = CommittedOffsets(connection, self._group, self._topic, self.foreign_commit_remedies)
        self._membership: Membership | None = self._join_group()

    @abstractmethod
    def _open_task(self, number: int) -> TaskT:
        """Open the task of a partition."""

    @abstractmethod
    def _local_state(self) -> Mapping[int, int]:
        """Return by partition how new this process's state is: the larger, the newer."""

    def run_once(self) -> bool:
        """Poll, and let every task process its records or punctuate, in parallel; returns whether there were records.

        Raises:
            StateError: a task cannot continue with its state or its log.
            KafkaError: an error that opening the tasks again does not fix.
        """
        try:
            if self._membership is None:
                self._watch.check_now()
                self._membership = self._join_group()
            self._assignment = assignment = self._membership.assignment()
            if assignment is None:
                time.sleep(_IDLE_SLEEP)
                return False
            if assignment.version != self._reconciled_version:
                self.reconcile_assignment(assignment)
            if not self.tasks:
                time.sleep(_IDLE_SLEEP)
                return False
            polled = self._poll_records()
            # After the poll: its records are of the topic that the metadata had at the latest by then.
            self._watch.check(self._consumer)
            sample = self._sample_end_offsets()
            self._run_all(
                [
                    self._next_action(task, polled.get(task.topic_partition), assignment.group_metadata, sample)
                    for task in self.tasks.values()
                ]
            )
            for task in self.tasks.values():
                task.lag = self._lag(task)
        except (KafkaError, BrokerUnavailableError) as error:
            self.recreate_tasks(error)
            return False
        return bool(polled)

    def commit_ends(self, end: EndOfInput) -> None:
        """Let every task that has read its partition up to `end` commit and report that."""
        assignment = self._assignment
        if assignment is None:
            return
        try:
            actions = [
                task.end_action(end, self.position_of(task), assignment.group_metadata) for task in self.tasks.values()
            ]
            self._run_all([action for action in actions if action is not None])
        except (KafkaError, BrokerUnavailableError) as error:
            self.recreate_tasks(error)

    def group_has_ended(self, end: EndOfInput) -> bool:
        """Return whether the group's tasks, in all processes, have processed everything up to `end`."""
        for number, task in self.tasks.items():
            reached = task.committed_metadata.reached_end_offsets
            if not self.task_class.has_committed_end(reached, number, end):
                return False
            if task.has_unread(end, self.position_of(task)):
                return False
        if time.monotonic() - self._committed_polled_at < _SAMPLE_INTERVAL:
            return False
        self._committed_polled_at = time.monotonic()
        try:
            for number in range(len(end.offsets)):
                committed = self._committed_offsets.fetch(number, _COMMITTED_TIMEOUT)
                reached = [] if committed is None else committed[1].reached_end_offsets
                if not self.task_class.has_committed_end(reached, number, end):
                    return False
        except (KafkaError, BrokerUnavailableError) as error:
            self._log.warning("%s: the group's offsets cannot be read (%s): trying again", self.stage, _one_line(error))
            return False
        return True

    def close(self) -> None:
        """Close all tasks and leave the group."""
        try:
            self._close_tasks()
        finally:
            if self._membership is not None:
                self._membership.close()
        self._pool.shutdown()
        self._committed_offsets.close()
        self._consumer.close()

    def _poll_records(self) -> dict[TopicPartition, list[Any]]:
        """Return the records of the next round."""
        return self._poll(_POLL_TIMEOUT, _LINGER)

    def _poll(self, timeout: float, linger: float) -> dict[TopicPartition, list[Any]]:
        """Poll for some time: a transaction costs the same for one record as for thousands.

        Args:
            timeout: seconds to wait for the first record.
            linger: seconds for which records are gathered after it.
        """
        polled: dict[TopicPartition, list[Any]] = {}
        records = size = 0
        deadline = time.monotonic() + timeout
        while True:
            remaining = deadline - time.monotonic()
            more = self._fetcher.poll(max(0, round(remaining * 1000)))
            if more and not polled:
                deadline = time.monotonic() + linger
            for partition, found in more.items():
                polled.setdefault(partition, []).extend(found)
                records += len(found)
                size += sum(record.serialized_value_size for record in found)
            if records >= _MAX_ROUND_RECORDS or size >= _MAX_ROUND_BYTES or time.monotonic() >= deadline:
                return polled

    def _next_action(
        self, task: TaskT, records: list[Any] | None, group_metadata: Any, sample: EndOffsetsSample | None
    ) -> Callable[[], None]:
        """Return the call by which a task processes its records, or punctuates without any."""
        if records:
            return partial(task.process, records, group_metadata)
        position = -1 if sample is None else self.position_of(task)
        return partial(task.punctuate, PunctuationContext(group_metadata, sample, position))

    def _run_all(self, actions: Sequence[Callable[[], None]]) -> None:
        """Run actions in parallel, since a transaction is mostly waiting; raise the first error of any."""
        if len(actions) == 1:
            actions[0]()
            return
        _raise_first([self._pool.submit(action) for action in actions])

    def _sample_end_offsets(self) -> EndOffsetsSample | None:
        """Return the end offsets if a task needs them, at most once a second; None otherwise and the first time."""
        needed = any(task.needs_end_offsets for task in self.tasks.values())
        if not needed or time.monotonic() - self._sampled_at < _SAMPLE_INTERVAL:
            return None
        partitions = [TopicPartition(self._topic, number) for number in range(self._partitions)]
        found = self._end_offsets.fetch(partitions)
        previous, self._sampled_ends = self._sampled_ends, [found[partition] for partition in partitions]
        self._sampled_at = time.monotonic()
        return None if previous is None else EndOffsetsSample(previous, self._sampled_ends)

    def _positions(self) -> dict[int, int]:
        return {number: self.position_of(task) for number, task in self.tasks.items()}

    def position_of(self, task: TaskT) -> int:
        """Return the offset of the next record to read, past transaction markers; -1 if unknown."""
        return next_offset(self._consumer, task.topic_partition)

    def _lag(self, task: TaskT) -> int | None:
        """Return the number of unread records of the task's partition as of the last fetch; None before it."""
        end, position = self._consumer.highwater(task.topic_partition), self.position_of(task)
        return None if end is None or position < 0 else max(0, end - position)

    def reconcile_assignment(self, assignment: Assignment) -> None:
        """Close the tasks that were revoked and open those that were assigned."""
        if assignment.lost_count != self._handled_lost_count:
            self._close_tasks()
            self._handled_lost_count = assignment.lost_count
        revoked = [number for number in self.tasks if number not in assignment.tasks]
        if revoked:
            failpoint(Failpoint.REBALANCE)
        _raise_first([self._pool.submit(self.tasks.pop(number).close) for number in revoked])
        for number in revoked:
            _log.info(
                "%s task %d: revoked",
                self.stage,
                number,
                extra={"stage": self.stage, "partition": number},
            )
        added = sorted(assignment.tasks - self.tasks.keys())
        opening = [self._pool.submit(self._open_task, number) for number in added]
        for number, future in zip(added, opening, strict=True):
            if future.exception() is None:
                self.tasks[number] = future.result()
        if any(isinstance(future.exception(), StateError) for future in opening):
            # Of a topic that was recreated a moment ago, commit and log do not fit together either: with a topic the
            # broker deletes its offsets.
            self._watch.check_now()
        _raise_first(opening)
        self._consumer.assign([task.topic_partition for task in self.tasks.values()])
        for number in added:
            task = self.tasks[number]
            seek(self._consumer, task.topic_partition, task.next_offset, task.next_leader_epoch)
            task.log.info("%s task %d: open at offset %d", self.stage, number, task.next_offset)
        self._reconciled_version = assignment.version

    def recreate_tasks(self, error: KafkaError | BrokerUnavailableError) -> None:
        """Drop the tasks after a failed transaction; they are opened again from the committed offsets.

        The group is joined again first: to open a task that has been reassigned would fence its new owner.
        """
        if isinstance(error, _FATAL_ERRORS):
            raise error
        repeated = time.monotonic() - self._logged_at < _LOG_INTERVAL
        self._log.log(
            logging.DEBUG if repeated else logging.WARNING,
            "%s: %s: opening the tasks again from the committed offsets",
            self.stage,
            _one_line(error),
        )
        self._logged_at = self._logged_at if repeated else time.monotonic()
        self._close_tasks()
        if self._membership is not None:
            self._membership.close()
        self._membership = self._assignment = None
        self._reconciled_version = self._handled_lost_count = 0

    def _close_tasks(self) -> None:
        tasks = list(self.tasks.values())
        self.tasks.clear()
        _raise_first([self._pool.submit(task.close) for task in tasks])
        self._consumer.unsubscribe()

    def _join_group(self) -> Membership:
        return Membership(
            self._connection,
            self._group,
            self._topic,
            self._partitions,
            session_timeout=self._session_timeout,
            local_state=self._local_state,
        )

    def _check_group(self) -> None:
        """Check that no other system uses the group: with equal transactional ids the two would fence each other."""
        committed = self._connection.call_admin(lambda admin: admin.list_group_offsets([self._group]))
        others = sorted({partition.topic for partition in committed.get(self._group, {})} - {self._topic})
        if others:
            raise StateError(
                f"group {self._group} has read {others[0]}, so it belongs to another system than that of {self._topic}",
                Remedy.OTHER_GROUP_PREFIX,
            )


def _raise_first(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, then raise the first error; a StateError explains more than the transaction that failed with it."""
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, KafkaError | BrokerUnavailableError)):
        raise error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
