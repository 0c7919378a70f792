"""The stages of the live system."""

from collections.abc import Mapping
from typing import Final

from prectr.stream.kafka.tasks.aggregate_task import AggregateTask
from prectr.stream.kafka.tasks.join_task import JoinTask
from prectr.stream.kafka.tasks.stateful_task import StatefulTask

STAGES: Final[Mapping[str, type[StatefulTask]]] = {task.stage: task for task in (JoinTask, AggregateTask)}
"""By name, in the order of the data flow: the class of the stage's tasks, which names its topics."""
