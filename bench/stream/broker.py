"""The broker that `bench.stream` uses, and the topics of one run."""

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
"""Starts faster but disables the optimizing compiler, so the benchmark removes it."""


class BenchBroker(Broker):
    """A broker with 512 MB of heap and the optimizing compiler, as in production."""

    def __init__(self, home: Path, folder: Path) -> None:
        super().__init__(home, folder)
        command = [option for option in self._java if option != _TEST_JVM_OPTION]
        self._java = [command[0], f"-Djava.io.tmpdir={folder}", *command[1:]]
        self.data = folder / "data"

    @property
    def pid(self) -> int:
        """Process id; the broker must be running."""
        assert self._process is not None
        return self._process.pid


@contextmanager
def running_broker(folder: Path) -> Iterator[BenchBroker]:
    """Run a broker on a free port with its data in `folder`.

    Raises:
        UsageError: no Kafka installation was found.
    """
    home = kafka_home()
    if home is None:
        raise UsageError(f"no Kafka found: {INSTALL_HINT}")
    broker = BenchBroker(home, folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


class StreamSystem:
    """One system on the broker, with its own prefix of topics and groups."""

    def __init__(self, broker: BenchBroker, name: str) -> None:
        self.broker = broker
        self.prefix = f"{name}."
        self.topics = Topics(self.prefix)
        self.connection = Connection(broker.address, connect_timeout=30)

    @property
    def flags(self) -> list[str]:
        """Flags of a `prectr` command for this system."""
        return ["--bootstrap", self.broker.address, "--topic-prefix", self.prefix]

    def load_workload(self, workload: Workload) -> None:
        """Create the topics, and load a log as `prectr load` does."""
        self.create_topics()
        load([str(workload.path)], self.connection, self.topics)

    def create_topics(self) -> None:
        """Create the topics."""
        create_topics(self.connection, self.topics, PARTITIONS)

    def topic_megabytes(self, topic: str) -> float:
        """Size of a topic on the broker's disk, in MB."""
        return sum(disk_megabytes(path) for path in self.broker.data.glob(f"{topic}-[0-9]*"))

    def delete_topics(self) -> None:
        """Delete the topics, so that the next run has the same disk space."""
        self.connection.call_admin(self._remove)

    def _remove(self, admin: KafkaAdminClient) -> None:
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(self.prefix)])


class StableEndOffsets:
    """Fetches the last stable offsets of a topic."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._consumer = connection.consumer(group_id=None)
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    def now(self) -> list[int] | None:
        """Offsets by partition; None if the broker does not answer in time."""
        try:
            ends = self._consumer.end_offsets(self._partitions)
        except KafkaError:
            return None
        return [ends[partition] for partition in self._partitions]

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def disk_megabytes(folder: Path) -> float:
    """Disk usage of a folder, in MB."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total / 1e6
