"""Sees when committed output flows again after a fault."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kafka import TopicPartition

from prectr.stream.kafka.client.client import Connection
from prectr.stream.ordering.frames import decode_frame


class Recovery(Protocol):
    """What is waited for after a fault."""

    @property
    def seconds(self) -> float | None:
        """From the fault until output flowed again; None: it does not yet."""


class Output:
    """Committed examples as they come, by partition: read committed, timed by the broker."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self._consumer = connection.consumer(group_id=None)
        self._consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        self._partitions = partitions
        self._waiting: list[ExamplesAgain] = []

    def poll(self, seconds: float) -> None:
        """Read for so long, or until something has come."""
        for partition, records in self._consumer.poll(timeout_ms=round(seconds * 1000)).items():
            for record in records:
                where = f"{record.topic} partition {record.partition} offset {record.offset}"
                if not decode_frame(record.value, where).records:
                    continue
                for waiting in self._waiting:
                    if record.timestamp >= waiting.since * 1000:
                        waiting.came.setdefault(partition.partition, record.timestamp / 1000)

    def again(self) -> "ExamplesAgain":
        """Begin to wait: from now on, examples must come in every partition."""
        waiting = ExamplesAgain(time.time(), self._partitions)
        self._waiting.append(waiting)
        return waiting

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


@dataclass
class ExamplesAgain:
    """Waits until every partition of `training-examples` has had a committed frame with examples in it."""

    since: float
    partitions: int
    came: dict[int, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """From the fault until the last of the partitions had examples again."""
        return max(self.came.values()) - self.since if len(self.came) == self.partitions else None


class CheckpointAgain:
    """Waits until the trainer has written another checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._newest()
        self._since = time.monotonic()
        self._seconds: float | None = None

    @property
    def seconds(self) -> float | None:
        """From the fault until a checkpoint that was not there before."""
        if self._seconds is None and self._newest() > self._before:
            self._seconds = time.monotonic() - self._since
        return self._seconds

    def _newest(self) -> int:
        return max((int(path.name) for path in self._folder.glob("*") if path.name.isdigit()), default=0)
