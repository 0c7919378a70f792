"""The stages of the live system, and the tasks of one of them in this process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prectr.state.errors import Remedy
from prectr.stream.config import PipelineConfig
from prectr.stream.events.contract import ResultPage
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.tasks.aggregate_task import AggregateTask
from prectr.stream.kafka.tasks.join_task import JoinTask
from prectr.stream.kafka.tasks.stateful_task import StatefulTask
from prectr.stream.kafka.tasks.task_context import SnapshotSettings, TaskContext
from prectr.stream.kafka.tasks.task_manager import TaskManager, TaskSource
from prectr.stream.kafka.tasks.task_status import TaskStatus

STAGES: Final[Mapping[str, type[StatefulTask]]] = {task.stage: task for task in (JoinTask, AggregateTask)}
"""By name, in the order of the data flow: the class of the stage's tasks, which names its topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Settings of a stream worker.

    Attributes:
        stages: names of the stages to run.
        session_timeout: seconds after which the group reassigns a dead process's tasks.
        idle_timeout: seconds without input after which other partitions no longer wait for a partition's pending pages.
    """

    connection: Connection
    topics: Topics
    group_prefix: str
    config: PipelineConfig
    state_dir: Path
    stages: Sequence[str] = tuple(STAGES)
    session_timeout: float = 10.0
    idle_timeout: float = 60.0
    snapshots: SnapshotSettings | None = None


class StageManager(TaskManager[StatefulTask]):
    """The tasks of a stage, with their state folders."""

    foreign_commit_remedies = (Remedy.RESTORE_OFFSETS, Remedy.OTHER_GROUP_PREFIX)

    def __init__(
        self,
        settings: StreamSettings,
        stage: str,
        label: Callable[[str, ResultPage], None],
        end_offsets: EndOffsets,
        cluster: str,
    ) -> None:
        """Join the group.

        Args:
            stage: name of the stage, a key of `STAGES`.
            label: fills in missing relevance levels of a page.
            cluster: id of the Kafka cluster.

        Raises:
            StateError: the group belongs to another system.
        """
        self.task_class = STAGES[stage]
        self._settings = settings
        self._label = label
        self._cluster = cluster
        topic = self.task_class.input_topic(settings.topics)
        source = TaskSource(stage, topic, settings.config.partitions, f"{settings.group_prefix}{stage}")
        super().__init__(settings.connection, source, end_offsets, settings.session_timeout)

    def task_statuses(self) -> list[TaskStatus]:
        """Return the status of each task of this process; thread-safe."""
        return [task.status() for task in list(self.tasks.values())]

    def _open_task(self, number: int) -> StatefulTask:
        settings = self._settings
        return self.task_class.open(
            TaskContext(
                connection=settings.connection,
                topics=settings.topics,
                group=self._group,
                partition=number,
                config=settings.config,
                state_dir=settings.state_dir,
                cluster=self._cluster,
                topic_id=self._topic_id,
                snapshots=settings.snapshots,
                end_offsets=self._end_offsets,
                committed_offsets=self._committed_offsets,
                label=self._label,
                idle_timeout=settings.idle_timeout,
            )
        )

    def _local_state(self) -> Mapping[int, int]:
        """Return when each task's state in the state folder was last written (ms), by partition."""
        last_written = {}
        for number in range(self._partitions):
            folder = self._settings.state_dir / f"{self.stage}-{number}"
            try:
                last_written[number] = max(round(file.stat().st_mtime * 1000) for file in folder.iterdir())
            except (OSError, ValueError):
                continue
        return last_written
