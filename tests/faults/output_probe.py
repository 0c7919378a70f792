"""Sees when committed output flows again after a fault."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kafka import TopicPartition

from prectr.stream.kafka.client.client import Connection
from prectr.stream.ordering.frames import decode_frame


class RecoveryTimer(Protocol):
    """What is waited for after a fault."""

    @property
    def seconds(self) -> float | None:
        """From the fault until output flowed again; None: it does not yet."""


class OutputProbe:
    """Committed examples as they come, by partition: read committed, timed by the broker."""

    def __init__(self, connection: Connection, topic: str, partitions: int) -> None:
        self._consumer = connection.consumer(group_id=None)
        self._consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        self._partitions = partitions
        self._timers: list[ExamplesRecovery] = []

    def poll(self, seconds: float) -> None:
        """Read for so long, or until something has come."""
        polled = self._consumer.poll(timeout_ms=round(seconds * 1000))
        if all(timer.seconds is not None for timer in self._timers):
            # Nobody waits, so the frames, which may be damaged on purpose, are left alone.
            return
        for partition, records in polled.items():
            for record in records:
                where = f"{record.topic} partition {record.partition} offset {record.offset}"
                if not decode_frame(record.value, where).records:
                    continue
                for timer in self._timers:
                    if record.timestamp >= timer.since * 1000:
                        timer.first_output_at.setdefault(partition.partition, record.timestamp / 1000)

    def start_recovery_timer(self) -> "ExamplesRecovery":
        """Begin to wait: from now on, examples must come in every partition."""
        timer = ExamplesRecovery(time.time(), self._partitions)
        self._timers.append(timer)
        return timer

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


@dataclass
class ExamplesRecovery:
    """Waits until every partition of `training-examples` has had a committed frame with examples in it."""

    since: float
    partitions: int
    first_output_at: dict[int, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """From the fault until the last of the partitions had examples again."""
        return max(self.first_output_at.values()) - self.since if len(self.first_output_at) == self.partitions else None


class CheckpointRecovery:
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
