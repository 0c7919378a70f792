"""Follows `training-examples` with read_committed, and records when each frame becomes readable."""

import time
from threading import Event, Thread
from typing import Any, Final, NamedTuple

from kafka import TopicPartition

from bench.stream.broker import StreamSystem
from bench.stream.workload import PARTITIONS
from prectr.stream.ordering.frames import decode_frame

_POLL_MS: Final = 100


class Arrival(NamedTuple):
    """A frame with examples. at: when it became readable, s since the epoch. examples: their number."""

    at: float
    partition: int
    offset: int
    examples: int


class ExampleFollower:
    """Reads the topic in a thread of its own until closed."""

    def __init__(self, system: StreamSystem) -> None:
        self.arrivals: list[Arrival] = []
        self.examples = 0
        self._topic = system.topics.examples
        self._consumer = system.connection.consumer(group_id=None, fetch_max_wait_ms=20)
        self._consumer.assign([TopicPartition(self._topic, number) for number in range(PARTITIONS)])
        self._stop = Event()
        self._thread = Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS)
            now = time.time()
            for partition, records in polled.items():
                for record in records:
                    count = len(decode_frame(record.value, self._topic).records)
                    if count:
                        self.arrivals.append(Arrival(now, partition.partition, record.offset, count))
                        self.examples += count
