"""Runs the `ingest` tasks of one topic that the consumer group has assigned to this process."""

from collections.abc import Mapping
from typing import Any, Final

from kafka import TopicPartition
from kafka.errors import KafkaError

from prectr.state.errors import BrokerUnavailableError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.ingest.alignment import Alignment
from prectr.stream.kafka.ingest.ingest_task import IngestStatus, IngestTask
from prectr.stream.kafka.ingest.position_sampler import PositionSampler
from prectr.stream.kafka.ingest.record_mapper import RecordMapper
from prectr.stream.kafka.tasks.membership import Assignment
from prectr.stream.kafka.tasks.task_manager import TaskManager, TaskSource

_POLL_TIMEOUT: Final = 0.1
_LINGER: Final = 0.05
"""Seconds for which records are gathered after the first."""


class IngestManager(TaskManager[IngestTask]):
    """Reads one topic in step with the others, and maps its records before its tasks process them."""

    task_class = IngestTask

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        source: TaskSource,
        mapper: RecordMapper,
        sampler: PositionSampler,
        end_offsets: EndOffsets,
        session_timeout: float,
    ) -> None:
        """Join the group of a topic.

        Args:
            sampler: samples the positions for the alignment of all topics.
            session_timeout: seconds after which the group reassigns a dead process's tasks.

        Raises:
            StateError: the group belongs to another system.
        """
        self._topics = topics
        self._mapper = mapper
        self._sampler = sampler
        self._alignment_version = 0
        super().__init__(connection, source, end_offsets, session_timeout)

    @property
    def _alignment(self) -> Alignment:
        return self._sampler.alignment

    def statuses(self) -> list[IngestStatus]:
        """Return the status of each task of this process; thread-safe."""
        return [task.status() for task in list(self.tasks.values())]

    def _poll_records(self) -> dict[TopicPartition, list[Any]]:
        """Read and map further records, and return those whose event time has come."""
        self._sampler.sample_if_due()
        self._pause_full()
        due = self._take_due()
        # Records that are due do not wait for more, and those that are not due are woken by the alignment.
        polled = self._poll(0.0, 0.0) if due or self._is_waiting else self._poll(_POLL_TIMEOUT, _LINGER)
        for where, records in polled.items():
            self.tasks[where.partition].read_ahead.add([self._mapper.map(record) for record in records])
        for task in self.tasks.values():
            task.read_offset = max(task.read_offset, super()._consumer_position(task))
        due = due or self._take_due()
        if not due and not polled and self._is_waiting:
            self._alignment.wait_for_change(self._alignment_version, _POLL_TIMEOUT)
        return due

    def _pause_full(self) -> None:
        paused = self._consumer.paused()
        for task in self.tasks.values():
            if task.read_ahead.is_full and task.topic_partition not in paused:
                self._consumer.pause(task.topic_partition)
            elif not task.read_ahead.is_full and task.topic_partition in paused:
                self._consumer.resume(task.topic_partition)

    @property
    def _is_waiting(self) -> bool:
        return any(task.read_ahead.first_offset is not None for task in self.tasks.values())

    def _take_due(self) -> dict[TopicPartition, list[Any]]:
        self._publish_positions()
        self._alignment_version = self._alignment.version
        limit = self._alignment.limit()
        taken = {task.topic_partition: task.read_ahead.take(limit) for task in self.tasks.values()}
        return {where: records for where, records in taken.items() if records}

    def _publish_positions(self) -> None:
        self._alignment.set_own(self._topic, {task.topic_partition: task.position for task in self.tasks.values()})

    def _consumer_position(self, task: IngestTask) -> int:
        """Return the offset of the next record to process, past transaction markers."""
        return task.position.offset

    def _reconcile_assignment(self, assignment: Assignment) -> None:
        super()._reconcile_assignment(assignment)
        self._publish_positions()

    def _recreate_tasks(self, error: KafkaError | BrokerUnavailableError) -> None:
        super()._recreate_tasks(error)
        self._publish_positions()

    def _open_task(self, number: int) -> IngestTask:
        return IngestTask.open(
            self._connection,
            self._topics,
            TopicPartition(self._topic, number),
            self._topic_id,
            self._committed_offsets,
            self._end_offsets,
        )

    def _local_state(self) -> Mapping[int, int]:
        """Return the tasks that are open: they stay where they are."""
        return dict.fromkeys(list(self.tasks), 1)
