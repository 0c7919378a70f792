"""How far a live system is: asked of the broker and read from the trainer's report, nothing disturbed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from prectr.stream.kafka.transactions.committed_offsets import decode_commit

REPORT_FILE: Final = "report.json"


class ReportedQuality(msgspec.Struct, frozen=True):
    """A model's quality so far, of pages scored before they were learned from; None while it is undefined."""

    model: str
    auc: float | None = None
    gauc: float | None = None


class TrainerReport(msgspec.Struct, frozen=True):
    """What the trainer said in its last report: pages learned from, and the quality of its models."""

    pages: int = 0
    models: list[ReportedQuality] = []


class PipelineStatus(msgspec.Struct, frozen=True):
    """What the broker knows.

    events: in the log since it began. unread: of them, by partition, those that no `sessions` task has committed.
    closed: pages whose labels are final. examples: pages with all aggregates, ready to be learned from.
    """

    events: int
    lag: list[int]
    joined_pages: int
    examples: int


class PipelineStatusReader:
    """Asks a broker how far the stages are, without joining their groups."""

    def __init__(self, connection: Connection, topics: Topics, group_prefix: str, partitions: int) -> None:
        self._connection = connection
        self._events = [TopicPartition(topics.events, number) for number in range(partitions)]
        self._joined_pages = [TopicPartition(topics.joined_pages, number) for number in range(partitions)]
        self._join_group, self._aggregate_group = f"{group_prefix}join", f"{group_prefix}aggregate"
        self._consumer: KafkaConsumer = connection.consumer(group_id=None)

    def read(self) -> PipelineStatus:
        """How far the stages are now.

        Raises:
            PrectrError: the broker does not answer, or a group belongs to another program.
        """
        with self._connection.translate_errors():
            ends = self._consumer.end_offsets(self._events)
            first = self._consumer.beginning_offsets(self._events)
        committed: Mapping[str, Mapping[TopicPartition, OffsetAndMetadata]] = self._connection.call_admin(
            lambda admin: admin.list_group_offsets([self._join_group, self._aggregate_group])
        )
        join_offsets = [decode_commit(committed[self._join_group].get(each), each) for each in self._events]
        aggregate_offsets = [
            decode_commit(committed[self._aggregate_group].get(each), each) for each in self._joined_pages
        ]
        return PipelineStatus(
            events=sum(ends.values()),
            lag=[
                ends[each] - (offset[0] if offset else first[each])
                for each, offset in zip(self._events, join_offsets, strict=True)
            ],
            joined_pages=sum(commit[1].emitted for commit in join_offsets if commit),
            examples=sum(commit[1].emitted for commit in aggregate_offsets if commit),
        )

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def read_trainer_report(run_dir: Path) -> TrainerReport | None:
    """What the trainer's last report says; None before its first."""
    try:
        return msgspec.json.decode((run_dir / REPORT_FILE).read_bytes(), type=TrainerReport)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
