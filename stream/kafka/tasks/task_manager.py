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

from prectr.state.errors import BrokerUnavailableError, StateError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, EndOffsetsSample
from prectr.stream.kafka.client.topics import Topics, describe_topic
from prectr.stream.kafka.tasks.aggregate_task import AggregateTask
from prectr.stream.kafka.tasks.join_task import IDLE_AFTER, JoinTask
from prectr.stream.kafka.tasks.membership import Assignment, Membership
from prectr.stream.kafka.tasks.task import SnapshotSettings, Task, TaskContext, offset_out_of_range_message
from prectr.stream.kafka.tasks.task_status import TaskStatus
from prectr.stream.kafka.transactions.producer import CommittedOffsets
from prectr.stream.ordering.frames import END_OF_LOG

_MAX_POLL_RECORDS: Final = 8_192
_POLL_TIMEOUT: Final = 0.1
_LINGER: Final = 0.1
"""How long records are gathered, once the first are there."""
_MAX_ROUND_RECORDS: Final = 16_384
_MAX_ROUND_BYTES: Final = 16 << 20
_MAX_PARTITION_FETCH_BYTES: Final = 4 << 20
"""Of a partition at a time: the tasks go on side by side, so that the next stage need not hold what is ahead."""
_COMMITTED_TIMEOUT: Final = 2.0
"""How long the tasks here may wait until it is known what others have committed."""
_SAMPLE_INTERVAL: Final = 1.0
"""Seconds between two looks at how far the logs reach, and at what the whole group has committed."""
_IDLE_SLEEP: Final = 0.02
_FATAL_ERRORS: Final = (
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
    stages: Sequence[str] = ("join", "aggregate")
    session_timeout: float = 10.0
    idle_timeout: float = 60.0
    snapshots: SnapshotSettings | None = None


class TaskManager:
    """The tasks of one stage that this process has now."""

    def __init__(
        self,
        settings: StreamSettings,
        stage: str,
        label: Callable[[str, ResultPage], None],
        end_offsets: EndOffsets,
        cluster: str,
    ) -> None:
        """Join the group; raises StateError where the group belongs to another system."""
        self.stage = stage
        self._log = logging.LoggerAdapter(_log, {"stage": stage})
        self.tasks: dict[int, Task] = {}
        self._settings = settings
        self._label = label
        self._end_offsets = end_offsets
        self._cluster = cluster
        self._topic = settings.topics.events if stage == "join" else settings.topics.joined_pages
        self._topic_id = describe_topic(settings.connection, self._topic).topic_id
        self._group = f"{settings.group_prefix}{stage}"
        self._assignment: Assignment | None = None
        self._reconciled_version = self._handled_lost_count = 0
        self._committed_polled_at = self._sampled_at = 0.0
        self._sampled_ends: list[int] | None = None
        self._check_group()
        partitions = settings.config.partitions
        self._pool = ThreadPoolExecutor(max_workers=partitions, thread_name_prefix=stage)
        self._consumer: KafkaConsumer = settings.connection.consumer(
            group_id=None, max_poll_records=_MAX_POLL_RECORDS, max_partition_fetch_bytes=_MAX_PARTITION_FETCH_BYTES
        )
        self._committed_offsets = CommittedOffsets(settings.connection, self._group, self._topic)
        self._membership: Membership | None = self._join_group()

    def run_once(self) -> bool:
        """Let the tasks take what has come, side by side; whether anything had.

        Raises:
            StateError: a task cannot go on with its state or its log.
            KafkaError: the broker refuses for good.
        """
        try:
            if self._membership is None:
                self._membership = self._join_group()
            self._assignment = assignment = self._membership.assignment()
            if assignment is None:
                time.sleep(_IDLE_SLEEP)
                return False
            if assignment.version != self._reconciled_version:
                self._reconcile_assignment(assignment)
            if not self.tasks:
                time.sleep(_IDLE_SLEEP)
                return False
            polled = self._poll_records()
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
            self._recreate_tasks(error)
            return False
        return bool(polled)

    def commit_ends(self, ends: Sequence[int], *, flush: bool) -> None:
        """Let every `join` task whose partition has been read to its end say so. ends: offset by partition."""
        if self._assignment is None:
            return
        actions = []
        try:
            for number, task in self.tasks.items():
                target = END_OF_LOG if flush else ends[number]
                if (
                    isinstance(task, JoinTask)
                    and task.reached_end_offset < target
                    and self._consumer_position(task) >= ends[number]
                ):
                    actions.append(partial(task.commit_end, self._assignment.group_metadata, target, ends))
            self._run_all(actions)
        except (KafkaError, BrokerUnavailableError) as error:
            self._recreate_tasks(error)

    def group_has_ended(self, ends: Sequence[int], *, flush: bool) -> bool:
        """Whether every task of the group, in whatever process, has read to `ends` and put out what came of it."""
        if not all(
            self._has_ended(task.committed_metadata.reached_end_offsets, number, ends, flush)
            for number, task in self.tasks.items()
        ):
            return False
        for number, task in self.tasks.items():
            # Who has said that the log has ended for good may have events after that to refuse.
            if isinstance(task, JoinTask) and self._consumer_position(task) < ends[number]:
                return False
        if time.monotonic() - self._committed_polled_at < _SAMPLE_INTERVAL:
            return False
        self._committed_polled_at = time.monotonic()
        try:
            for number in range(len(ends)):
                committed = self._committed_offsets.fetch(number, _COMMITTED_TIMEOUT)
                if committed is None or not self._has_ended(committed[1].reached_end_offsets, number, ends, flush):
                    return False
        except (KafkaError, BrokerUnavailableError) as error:
            self._log.warning("%s: the group's offsets cannot be read (%s): asking again", self.stage, _one_line(error))
            return False
        return True

    def task_statuses(self) -> list[TaskStatus]:
        """How each task that is here does; from any thread."""
        return [task.status() for task in list(self.tasks.values())]

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

    def _has_ended(self, reached_end_offsets: Sequence[int], number: int, ends: Sequence[int], flush: bool) -> bool:
        targets = [END_OF_LOG] * len(ends) if flush else ends
        if self.stage == "join":
            return bool(reached_end_offsets) and reached_end_offsets[0] >= targets[number]
        return len(reached_end_offsets) == len(targets) and all(
            offset >= target for offset, target in zip(reached_end_offsets, targets, strict=True)
        )

    def _poll_records(self) -> dict[TopicPartition, list[Any]]:
        """What has come, gathered for a moment: a transaction costs the same for one record as for thousands."""
        polled: dict[TopicPartition, list[Any]] = {}
        records = size = 0
        deadline = time.monotonic() + _POLL_TIMEOUT
        while True:
            remaining = deadline - time.monotonic()
            more: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=max(0, round(remaining * 1000)))
            if more and not polled:
                deadline = time.monotonic() + _LINGER
            for partition, found in more.items():
                polled.setdefault(partition, []).extend(found)
                records += len(found)
                size += sum(record.serialized_value_size for record in found)
            if records >= _MAX_ROUND_RECORDS or size >= _MAX_ROUND_BYTES or time.monotonic() >= deadline:
                return polled

    def _next_action(
        self, task: Task, records: list[Any] | None, group_metadata: Any, sample: EndOffsetsSample | None
    ) -> Callable[[], None]:
        """What a task has to do now."""
        if isinstance(task, AggregateTask):
            return (
                partial(task.process, records, group_metadata) if records else partial(task.punctuate, group_metadata)
            )
        assert isinstance(task, JoinTask)
        if records:
            if records[0].offset > task.next_offset:
                self._check_gap(task)
            return partial(task.process, records, group_metadata)
        return partial(task.punctuate, group_metadata, sample, -1 if sample is None else self._consumer_position(task))

    def _run_all(self, actions: Sequence[Callable[[], None]]) -> None:
        """Do pieces of work side by side, since a transaction is mostly waiting; raise the first error of any."""
        if len(actions) == 1:
            actions[0]()
            return
        _raise_first([self._pool.submit(action) for action in actions])

    def _sample_end_offsets(self) -> EndOffsetsSample | None:
        """How far the logs reach, where a task has had no input for a while; asked once a second."""
        idle = any(isinstance(task, JoinTask) and task.idle_seconds >= IDLE_AFTER for task in self.tasks.values())
        if not idle or time.monotonic() - self._sampled_at < _SAMPLE_INTERVAL:
            return None
        partitions = [TopicPartition(self._topic, number) for number in range(self._settings.config.partitions)]
        found = self._end_offsets.fetch(partitions)
        previous, self._sampled_ends = self._sampled_ends, [found[partition] for partition in partitions]
        self._sampled_at = time.monotonic()
        return None if previous is None else EndOffsetsSample(previous, self._sampled_ends)

    def _consumer_position(self, task: Task) -> int:
        """Offset of the next record to be read, past what a transaction of others has left; -1 where unknown."""
        try:
            return int(self._consumer.position(task.topic_partition))
        except IllegalStateError:
            return -1

    def _lag(self, task: Task) -> int | None:
        """Records of the task's partition that have not been read, as of the last answer; None before one."""
        end, position = self._consumer.highwater(task.topic_partition), self._consumer_position(task)
        return None if end is None or position < 0 else max(0, end - position)

    def _check_gap(self, task: JoinTask) -> None:
        log_start = self._end_offsets.fetch_ranges([task.topic_partition])[task.topic_partition].start
        if log_start > task.next_offset:
            raise StateError(
                offset_out_of_range_message(
                    f"{self._topic} partition {task.topic_partition.partition}", task.next_offset, log_start
                )
            )

    def _reconcile_assignment(self, assignment: Assignment) -> None:
        """Close the tasks that have gone and open those that have come."""
        if assignment.lost_count != self._handled_lost_count:
            self._close_tasks()
            self._handled_lost_count = assignment.lost_count
        revoked = [number for number in self.tasks if number not in assignment.tasks]
        if revoked:
            failpoint(Failpoint.REBALANCE)
        _raise_first([self._pool.submit(self.tasks.pop(number).close) for number in revoked])
        for number in revoked:
            _log.info(
                "%s task %d: gone to another process",
                self.stage,
                number,
                extra={"stage": self.stage, "partition": number},
            )
        added = sorted(assignment.tasks - self.tasks.keys())
        opening = [self._pool.submit(self._open_task, number) for number in added]
        for number, future in zip(added, opening, strict=True):
            if future.exception() is None:
                self.tasks[number] = future.result()
        _raise_first(opening)
        self._consumer.assign([task.topic_partition for task in self.tasks.values()])
        for number in added:
            task = self.tasks[number]
            self._consumer.seek(task.topic_partition, task.next_offset)
            task.log.info("%s task %d: open at offset %d", self.stage, number, task.next_offset)
        self._reconciled_version = assignment.version

    def _recreate_tasks(self, error: KafkaError | BrokerUnavailableError) -> None:
        """A transaction failed or its outcome is unknown: drop what is in memory and read the commits again.

        Joining anew tells whether a task is still ours before it is opened, which would fence its new owner.
        """
        if isinstance(error, _FATAL_ERRORS):
            raise error
        self._log.warning("%s: %s: opening the tasks again from what is committed", self.stage, _one_line(error))
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
            self._settings.connection,
            self._group,
            self._topic,
            self._settings.config.partitions,
            session_timeout=self._settings.session_timeout,
            local_state=self._local_state,
        )

    def _open_task(self, number: int) -> Task:
        settings = self._settings
        context = TaskContext(
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
        if self.stage == "join":
            return JoinTask(
                context,
                self._end_offsets,
                self._committed_offsets,
                label=self._label,
                idle_timeout=settings.idle_timeout,
            )
        return AggregateTask(context, self._end_offsets, self._committed_offsets)

    def _local_state(self) -> Mapping[int, int]:
        """When the state of each task that lies here was last written (ms)."""
        last_written = {}
        for number in range(self._settings.config.partitions):
            folder = self._settings.state_dir / f"{self.stage}-{number}"
            try:
                last_written[number] = max(round(file.stat().st_mtime * 1000) for file in folder.iterdir())
            except (OSError, ValueError):
                continue
        return last_written

    def _check_group(self) -> None:
        """Its transactional ids name group and partition, so two systems of one group would fence each other."""
        committed = self._settings.connection.call_admin(lambda admin: admin.list_group_offsets([self._group]))
        others = sorted({partition.topic for partition in committed.get(self._group, {})} - {self._topic})
        if others:
            raise StateError(
                f"group {self._group} has read {others[0]}, so it belongs to another system than the one of "
                f"{self._topic}: use another --group-prefix"
            )


def _raise_first(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, then raise the first error of any; one of ours says more than a transaction that failed beside."""
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, KafkaError | BrokerUnavailableError)):
        raise error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
