"""The broker that `bench.stream` measures on, and the topics of one run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from bench.stream.workload import PARTITIONS, Workload
from prectr.state.errors import UsageError
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, create_topics
from prectr.stream.kafka.io.log_loader import load
from testkit.kafka_broker import INSTALL_HINT, Broker, kafka_home

_TEST_JVM_OPTION: Final = "-XX:TieredStopAtLevel=1"
"""Starts faster, and never compiles for speed: not what a broker runs with."""


class BenchBroker(Broker):
    """One broker with 512 MB of heap, compiled for speed as in earnest."""

    def __init__(self, home: Path, folder: Path) -> None:
        super().__init__(home, folder)
        command = [option for option in self._java if option != _TEST_JVM_OPTION]
        self._java = [command[0], f"-Djava.io.tmpdir={folder}", *command[1:]]
        self.data = folder / "data"

    @property
    def pid(self) -> int:
        """The process, which must be running."""
        assert self._process is not None
        return self._process.pid


@contextmanager
def running_broker(folder: Path) -> Iterator[BenchBroker]:
    """A broker on a free port with its data in `folder`; stopped at the end.

    Raises:
        UsageError: there is no Kafka to start.
    """
    home = kafka_home()
    if home is None:
        raise UsageError(f"no Kafka to measure on: {INSTALL_HINT}")
    broker = BenchBroker(home, folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


class StreamSystem:
    """One system on the broker: its topics and groups have a prefix of their own."""

    def __init__(self, broker: BenchBroker, name: str) -> None:
        self.broker = broker
        self.prefix = f"{name}."
        self.topics = Topics(self.prefix)
        self.connection = Connection(broker.address, connect_timeout=30)

    @property
    def flags(self) -> list[str]:
        """What a `prectr` command is told of it."""
        return ["--bootstrap", self.broker.address, "--topic-prefix", self.prefix]

    def load_workload(self, workload: Workload) -> None:
        """Make the topics, and load a log as `prectr load` does."""
        self.create_topics()
        load([str(workload.path)], self.connection, self.topics)

    def create_topics(self) -> None:
        """Make the topics."""
        create_topics(self.connection, self.topics, PARTITIONS)

    def topic_megabytes(self, topic: str) -> float:
        """MB that a topic takes on the broker's disk."""
        return sum(disk_megabytes(path) for path in self.broker.data.glob(f"{topic}-[0-9]*"))

    def delete_topics(self) -> None:
        """Delete the topics, so that the next run finds the disk as this one did."""
        self.connection.call_admin(self._remove)

    def _remove(self, admin: KafkaAdminClient) -> None:
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(self.prefix)])


class StableEndOffsets:
    """Asks where a topic ends for those who read committed."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._consumer = connection.consumer(group_id=None)
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    def now(self) -> list[int] | None:
        """Offset by partition; None where the broker does not say in time."""
        try:
            ends = self._consumer.end_offsets(self._partitions)
        except KafkaError:
            return None
        return [ends[partition] for partition in self._partitions]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def disk_megabytes(folder: Path) -> float:
    """What a folder takes on disk, in MB."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total / 1e6
