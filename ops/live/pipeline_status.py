"""How far a live system is: asked of the broker and read from the trainer's report, nothing disturbed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.transactions.producer import read_committed

REPORT: Final = "report.json"


class ModelQuality(msgspec.Struct, frozen=True):
    """A model's quality so far, of pages scored before they were learned from; None while it is undefined."""

    model: str
    auc: float | None = None
    gauc: float | None = None


class Learned(msgspec.Struct, frozen=True):
    """What the trainer said in its last report: pages learned from, and the quality of its models."""

    pages: int = 0
    models: list[ModelQuality] = []


class Flow(msgspec.Struct, frozen=True):
    """What the broker knows.

    events: in the log since it began. unread: of them, by partition, those that no `sessions` task has committed.
    closed: pages whose labels are final. examples: pages with all aggregates, ready to be learned from.
    """

    events: int
    unread: list[int]
    closed: int
    examples: int


class FlowReader:
    """Asks a broker how far the stages are, without joining their groups."""

    def __init__(self, connection: Connection, topics: Topics, group_prefix: str, partitions: int) -> None:
        self._connection = connection
        self._events = [TopicPartition(topics.events, number) for number in range(partitions)]
        self._activity = [TopicPartition(topics.activity, number) for number in range(partitions)]
        self._sessions, self._queries = f"{group_prefix}sessions", f"{group_prefix}queries"
        self._consumer: KafkaConsumer = connection.consumer(group_id=None)

    def read(self) -> Flow:
        """How far the stages are now.

        Raises:
            PrectrError: the broker does not answer, or a group belongs to another program.
        """
        with self._connection.errors():
            ends = self._consumer.end_offsets(self._events)
            first = self._consumer.beginning_offsets(self._events)
        found: Mapping[str, Mapping[TopicPartition, OffsetAndMetadata]] = self._connection.ask(
            lambda admin: admin.list_group_offsets([self._sessions, self._queries])
        )
        sessions = [read_committed(found[self._sessions].get(each), each) for each in self._events]
        queries = [read_committed(found[self._queries].get(each), each) for each in self._activity]
        return Flow(
            events=sum(ends.values()),
            unread=[
                ends[each] - (commit[0] if commit else first[each])
                for each, commit in zip(self._events, sessions, strict=True)
            ],
            closed=sum(commit[1].emitted for commit in sessions if commit),
            examples=sum(commit[1].emitted for commit in queries if commit),
        )

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def read_learned(run_dir: Path) -> Learned | None:
    """What the trainer's last report says; None before its first."""
    try:
        return msgspec.json.decode((run_dir / REPORT).read_bytes(), type=Learned)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
